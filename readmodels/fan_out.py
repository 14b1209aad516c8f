"""The order in which posts are spread over their authors' chunks of followers.

Pure: it decides which chunk comes next and when the log counts as passed; whoever uses it reads and writes. Posts take
turns, a chunk each, so that a post with a hundred followers does not wait for one with a million. Posts of one author
that wait for the same chunk share a turn: whatever is behind is caught up with fewer commands than deliveries.
"""

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar
from uuid import UUID

Source = TypeVar("Source", bound=Hashable)

POSTS_A_TURN = 32
"""Posts that share a turn at most, so that a turn stays short."""


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
    generation: int = 0
    """The generation of the followers whose chunks these are (readmodels/generations.py)."""

    @property
    def is_done(self) -> bool:
        """Whether every chunk has been taken."""
        return self.next_chunk >= self.chunks

    def copy(self) -> "FanOut":
        """The same place on the way, which does not move with this one."""
        return replace(self)


@dataclass(slots=True)
class Turn:
    """Posts of one author that are to go to one chunk of followers."""

    generation: int
    author: UUID
    chunk: int
    fan_outs: list[FanOut]


@dataclass(slots=True)
class _Mark:
    """Something to release once all fan-outs that were added before it, of the same source, are done."""

    value: Any


@dataclass(slots=True)
class FanOutQueue(Generic[Source]):
    """Fan-outs in turn. `source` tells apart logs (partitions) that are passed independently of each other."""

    _turns: deque[Turn] = field(default_factory=deque)
    _open: dict[tuple[int, UUID, int], Turn] = field(default_factory=dict)
    """Turns that another post may join."""
    _waiting: int = 0
    _sources: dict[Source, deque[FanOut | _Mark]] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many posts wait for their next turn."""
        return self._waiting

    def add(self, source: Source, fan_out: FanOut) -> None:
        """Lines up a post behind those that are waiting."""
        if fan_out.is_done:
            return
        self._line_up(fan_out)
        self._sources.setdefault(source, deque()).append(fan_out)

    def mark(self, source: Source, value: Any) -> None:
        """Has `value` released when everything added before from this source is done."""
        self._sources.setdefault(source, deque()).append(_Mark(value))

    def take(self, turns: int) -> list[Turn]:
        """Up to so many turns, in which no post comes twice."""
        taken = []
        for _ in range(min(turns, len(self._turns))):
            turn = self._turns.popleft()
            key = turn.generation, turn.author, turn.chunk
            if self._open.get(key) is turn:
                del self._open[key]
            self._waiting -= len(turn.fan_outs)
            taken.append(turn)
        return taken

    def finish(self, turn: Turn, chunks: int) -> None:
        """Says that the chunk which `take` gave has been sent, and how many the author had when it was read."""
        for fan_out in turn.fan_outs:
            fan_out.next_chunk += 1
            fan_out.chunks = chunks
            if not fan_out.is_done:
                self._line_up(fan_out)

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

    def _line_up(self, fan_out: FanOut) -> None:
        self._waiting += 1
        key = fan_out.generation, fan_out.author, fan_out.next_chunk
        turn = self._open.get(key)
        if turn is not None and len(turn.fan_outs) < POSTS_A_TURN:
            turn.fan_outs.append(fan_out)
            return
        self._open[key] = turn = Turn(*key, [fan_out])
        self._turns.append(turn)

    def pending(self) -> Iterable[tuple[Source, FanOut]]:
        """The fan-outs that are not done, with their sources, in the order they came."""
        for source, waiting in self._sources.items():
            for item in waiting:
                if isinstance(item, FanOut) and not item.is_done:
                    yield source, item
