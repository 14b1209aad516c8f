"""The order in which posts are spread over their authors' chunks of followers.

Pure: it decides which chunk comes next and when the log counts as passed; whoever uses it reads and writes. Posts take
turns, a chunk each, so that a post with a hundred followers does not wait for one with a million.
"""

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar
from uuid import UUID

Source = TypeVar("Source", bound=Hashable)


@dataclass(slots=True)
class FanOut:
    """A post on its way to its author's followers, up to chunk `next_chunk`."""

    author: UUID
    entry: bytes
    source_ms: int
    """When the post was committed, in ms since the epoch."""
    traceparent: str | None = None
    next_chunk: int = 0
    chunks: int = 1
    """How many chunks the author had when a chunk was last read; followers who come later get the post otherwise."""

    @property
    def is_done(self) -> bool:
        """Whether every chunk has been taken."""
        return self.next_chunk >= self.chunks

    def copy(self) -> "FanOut":
        """The same place on the way, which does not move with this one."""
        return replace(self)


@dataclass(slots=True)
class _Mark:
    """Something to release once all fan-outs that were added before it, of the same source, are done."""

    value: Any


@dataclass(slots=True)
class FanOutQueue(Generic[Source]):
    """Fan-outs in turn. `source` tells apart logs (partitions) that are passed independently of each other."""

    _turns: deque[FanOut] = field(default_factory=deque)
    _sources: dict[Source, deque[FanOut | _Mark]] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many posts wait for their next turn."""
        return len(self._turns)

    def add(self, source: Source, fan_out: FanOut) -> None:
        """Lines up a post behind those that are waiting."""
        if fan_out.is_done:
            return
        self._turns.append(fan_out)
        self._sources.setdefault(source, deque()).append(fan_out)

    def mark(self, source: Source, value: Any) -> None:
        """Has `value` released when everything added before from this source is done."""
        self._sources.setdefault(source, deque()).append(_Mark(value))

    def take(self, chunks: int) -> list[tuple[FanOut, int]]:
        """Up to so many (post, chunk index) pairs, at most one a post."""
        taken = []
        for _ in range(min(chunks, len(self._turns))):
            fan_out = self._turns.popleft()
            taken.append((fan_out, fan_out.next_chunk))
        return taken

    def finish(self, fan_out: FanOut, chunks: int) -> None:
        """Says that the chunk which `take` gave has been sent, and how many the author had when it was read."""
        fan_out.next_chunk += 1
        fan_out.chunks = chunks
        if not fan_out.is_done:
            self._turns.append(fan_out)

    def release(self) -> list[Any]:
        """The marks whose time has come, in order."""
        released = []
        for waiting in self._sources.values():
            while waiting:
                first = waiting[0]
                if isinstance(first, _Mark):
                    released.append(first.value)
                elif not first.is_done:
                    break
                waiting.popleft()
        return released

    def pending(self) -> Iterable[tuple[Source, FanOut]]:
        """The fan-outs that are not done, with their sources, in the order they came."""
        for source, waiting in self._sources.items():
            for item in waiting:
                if isinstance(item, FanOut) and not item.is_done:
                    yield source, item
