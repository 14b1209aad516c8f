"""Records of a partition as columns, a run at a time: what `KafkaRunsSource` gives, and the archive's sink gathers.

An object a record, passed from step to step, costs more than all that is done to most records. So their parts are put
into columns while they are in the processor's cache, and the objects end with the batch that brought them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, groupby, pairwise
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectors.kafka_source import Item
from connectors.messages import Message

Headers = Sequence[tuple[str, bytes | None]]
Longs = npt.NDArray[np.int64]

DELETED = -1
"""The size of a value that is null."""


@dataclass(slots=True)
class Records(Sequence[Message]):
    """Records that follow each other in one partition; none was sent back from the dead letters."""

    topic: str
    partition: int
    offsets: Longs
    timestamps_ms: Longs
    keys: pa.BinaryArray
    sizes: Longs
    """Of the values, in bytes; `DELETED` for null."""
    values: list[bytes]
    """The values one behind the other, in pieces that end where one of them does."""
    headers: list[Headers]

    @classmethod
    def of(
        cls,
        topic: str,
        partition: int,
        offsets: Iterable[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: list[Headers],
        timestamps_ms: Iterable[int],
    ) -> "Records":
        """Records of the parts of each."""
        count = len(values)
        try:
            sizes = np.fromiter(map(len, values), np.int64, count)  # type: ignore[arg-type]
            joined = b"".join(values)  # type: ignore[arg-type]
        except TypeError:
            sizes = np.array([DELETED if value is None else len(value) for value in values], np.int64)
            joined = b"".join(filter(None, values))
        return cls(
            topic, partition, np.fromiter(offsets, np.int64, count), np.fromiter(timestamps_ms, np.int64, count),
            pa.array(keys, pa.binary()), sizes, [joined], headers,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> "Records": ...
    def __getitem__(self, index: int | slice) -> "Message | Records":
        if not isinstance(index, slice):
            at = range(len(self))[index]
            [found] = self[at : at + 1]
            return found
        start, stop, _ = index.indices(len(self))
        ends = np.cumsum(np.maximum(self.sizes, 0))
        first, last = (int(ends[at - 1]) if at else 0 for at in (start, max(start, stop)))
        return Records(
            self.topic, self.partition, self.offsets[index], self.timestamps_ms[index], self.keys[index],
            self.sizes[index], [b"".join(self.values)[first:last]], self.headers[index],
        )  # fmt: skip

    def __iter__(self) -> Iterator[Message]:
        data = b"".join(self.values)
        sizes = self.sizes.tolist()
        ends = accumulate((max(size, 0) for size in sizes), initial=0)
        columns = self.offsets.tolist(), self.keys.to_pylist(), sizes, pairwise(ends), self.headers
        for offset, key, size, (start, end), headers, timestamp_ms in zip(
            *columns, self.timestamps_ms.tolist(), strict=True
        ):
            value = None if size == DELETED else data[start:end]
            yield Message(self.topic, self.partition, offset, key, value, headers, timestamp_ms)

    @property
    def value_bytes(self) -> int:
        """What the values take in memory, about."""
        return sum(map(len, self.values))


def joined(runs: Sequence[Records]) -> Records:
    """Runs of one partition that follow each other, as one."""
    return Records(
        runs[0].topic,
        runs[0].partition,
        np.concatenate([run.offsets for run in runs]),
        np.concatenate([run.timestamps_ms for run in runs]),
        pa.concat_arrays([run.keys for run in runs]),
        np.concatenate([run.sizes for run in runs]),
        list(chain.from_iterable(run.values for run in runs)),
        list(chain.from_iterable(run.headers for run in runs)),
    )


def in_runs(items: Iterable[Item]) -> Iterator[Item | Records]:
    """Items in their order, plain records of one partition that follow each other as one."""
    for (kind, topic, partition), run in groupby(items, lambda item: (type(item), *item[:2])):
        if kind is Message:
            columns: Any = [list(column) for column in list(zip(*run, strict=True))[2:]]
            yield Records.of(topic, partition, *columns)
        else:
            yield from run
