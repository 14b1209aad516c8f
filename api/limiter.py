"""Rate limits that cost a request no round trip.

Each process counts its own requests and exchanges counts with Redis twice a second (`rate:{subject}:<window>`), so a
limit holds over all processes but may be overrun by what arrives within half a second. Without Redis each
process limits what it sees. A window is fixed: it begins at a multiple of its length.
"""

from dataclasses import dataclass

from api.redis_client import RedisClient
from api.redis_connection import RedisReplyError, RedisUnavailable
from fanline.clock import Clock
from readmodels.effects import command


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a subject may still do in its window."""

    limit: int
    remaining: int
    """Requests left after this one; negative when this one is already too many."""
    reset_ms: int
    """When the window ends, Unix milliseconds."""

    @property
    def exceeded(self) -> bool:
        """Whether the request is one too many."""
        return self.remaining < 0


@dataclass(slots=True)
class _Count:
    window: int
    known: int = 0
    unsent: int = 0


class RateLimiter:
    """Counts what subjects (a person, an address) do."""

    def __init__(self, redis: RedisClient, clock: Clock, window_seconds: int) -> None:
        self._redis = redis
        self._clock = clock
        self._window_ms = window_seconds * 1_000
        self._counts: dict[str, _Count] = {}

    def hit(self, subject: str, limit: int) -> Allowance:
        """Count one request of the subject."""
        count = self._count(subject)
        count.unsent += 1
        return self._allowance(count, limit)

    def peek(self, subject: str, limit: int) -> Allowance:
        """What the subject may still do, nothing counted."""
        return self._allowance(self._count(subject), limit)

    async def exchange(self) -> None:
        """Add what was counted here to Redis, learn the totals, and forget past windows."""
        window = self._clock.now_ms() // self._window_ms
        self._counts = {subject: count for subject, count in self._counts.items() if count.window == window}
        sent = [(subject, count, count.unsent) for subject, count in self._counts.items() if count.unsent]
        commands = []
        for subject, _, unsent in sent:
            key = f"rate:{{{subject}}}:{window}".encode()
            commands.append(command(key, b"INCRBY", unsent))
            commands.append(command(key, b"PEXPIRE", 2 * self._window_ms))
        if not commands:
            return
        try:
            replies = await self._redis.execute(commands)
        except (RedisUnavailable, RedisReplyError):
            return
        for (_, count, unsent), total in zip(sent, replies[::2], strict=True):
            count.known = total
            count.unsent -= unsent

    def _count(self, subject: str) -> _Count:
        window = self._clock.now_ms() // self._window_ms
        count = self._counts.get(subject)
        if count is None or count.window != window:
            count = self._counts[subject] = _Count(window)
        return count

    def _allowance(self, count: _Count, limit: int) -> Allowance:
        return Allowance(limit, limit - count.known - count.unsent, (count.window + 1) * self._window_ms)
