"""Records of a partition as columns, a run at a time: what the archive's source gives and its sink gathers.

An object a record, passed from step to step, costs more than all that is done to a record of the archive.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, repeat
from typing import Any, overload

from connectors.kafka_source import Item
from connectors.messages import Message

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(slots=True)
class Records(Sequence[Message]):
    """Records that follow each other in one partition; none was sent back from the dead letters."""

    topic: str
    partition: int
    offsets: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[Headers]
    timestamps_ms: list[int]

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> "Records": ...
    def __getitem__(self, index: int | slice) -> "Message | Records":
        made: Any = Records if isinstance(index, slice) else Message
        found: Message | Records = made(self.topic, self.partition, *(column[index] for column in self._columns()))
        return found

    def __iter__(self) -> Iterator[Message]:
        return map(Message, repeat(self.topic), repeat(self.partition), *self._columns())

    @property
    def value_bytes(self) -> int:
        """What the values take in memory, about."""
        return sum(map(len, filter(None, self.values)))

    def extend(self, more: "Records") -> None:
        """Append records of the same partition that come after these."""
        for column, others in zip(self._columns(), more._columns(), strict=True):
            column.extend(others)

    def _columns(self) -> tuple[list[Any], ...]:
        return self.offsets, self.keys, self.values, self.headers, self.timestamps_ms


def in_runs(items: Iterable[Item]) -> Iterator[Item | Records]:
    """Items in their order, plain records of one partition that follow each other as one."""
    for (kind, topic, partition), run in groupby(items, lambda item: (type(item), *item[:2])):
        if kind is Message:
            _, _, *columns = map(list, zip(*run, strict=True))
            made: Any = Records
            yield made(topic, partition, *columns)
        else:
            yield from run
