"""Whoever has just written reads from the database until the flows have passed the write.

After its commit a write is marked with the database's time, in this process and as `own:{<user id>}` in Redis for the
other processes (an hour at most). The watermark is a database time up to which every flow has applied everything; while
a reader's mark lies above it, read models may lack the reader's own write.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from api.database import Database
from api.redis_client import RedisClient, RedisReplyError, RedisUnavailable
from fanline.errors import FanlineError
from fanline.logging import get_logger
from readmodels.effects import Command, command

MARK_SECONDS = 3_600
# Above this many, marks of the last hour only are kept (a process that only writes never learns of the watermark).
MARKS = 100_000
# Half of what a reader notices, against two small requests to Kafka a poll, and only while somebody waits.
POLL_SECONDS = 0.5

# Rounded up, so that a mark never lies before the commit that it stands for.
NOW_MS = "SELECT ceil(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms"

_log = get_logger(__name__)


def mark_key(user_id: UUID) -> bytes:
    """The key of the time of somebody's last write."""
    return b"own:{%s}" % str(user_id).encode()


def read_mark(user_id: UUID) -> Command:
    """Reads the mark that any process has left in Redis."""
    return command(mark_key(user_id), b"GET")


class Watermark(Protocol):
    """How far the flows have come; used from one thread at a time (`connectors/watermark.py`)."""

    def poll(self) -> int:
        """Ms since the Unix epoch, database time, up to which every commit is in the read models."""

    def close(self) -> None:
        """Give back what it holds."""


class OwnWrites:
    """Knows whose last write the flows may not have passed yet.

    The watermark is opened in a thread when it is first needed, so that a process that nobody writes to never asks.
    """

    def __init__(self, redis: RedisClient, database: Database, open_watermark: Callable[[], Watermark]) -> None:
        self._redis = redis
        self._database = database
        self._open_watermark = open_watermark
        self._watermark: Watermark | None = None
        self._marks: dict[UUID, int] = {}
        self._newest_mark = 0
        self._wanted = asyncio.Event()
        self.watermark_ms = 0
        """Everything that was committed up to here, in ms of the database's clock, is in every read model."""

    async def mark(self, user_id: UUID) -> None:
        """Note that a write of this person was just committed; raises `DependencyUnavailable`."""
        row = await self._database.row(NOW_MS)
        assert row is not None
        mark_ms: int = row["now_ms"]
        self._note(user_id, mark_ms)
        try:
            await self._redis.execute([command(mark_key(user_id), b"SET", b"%d" % mark_ms, b"EX", MARK_SECONDS)])
        except (RedisUnavailable, RedisReplyError) as error:
            # Other processes answer from the database too while Redis is away.
            _log.warning("a write was not marked in redis", reason=str(error))

    def is_waiting(self, user_id: UUID) -> bool:
        """Whether a write that this process knows of has not passed the flows."""
        return self._marks.get(user_id, 0) > self.watermark_ms

    def is_waiting_for(self, user_id: UUID, mark: bytes | None) -> bool:
        """The same with the reply of `read_mark`."""
        if mark is not None and int(mark) > self.watermark_ms:
            self._note(user_id, int(mark))
        return self.is_waiting(user_id)

    async def run(self) -> None:
        """Keep the watermark moving while somebody waits for it; ends only by being cancelled."""
        poll: asyncio.Task[int] | None = None
        try:
            while True:
                await self._wanted.wait()
                poll = asyncio.create_task(asyncio.to_thread(self._poll))
                try:
                    self.passed(await asyncio.shield(poll))
                except FanlineError as error:
                    _log.warning("the watermark cannot be read", reason=str(error))
                await asyncio.sleep(POLL_SECONDS)
        finally:
            if poll is not None:
                await asyncio.wait([poll])  # a thread cannot be cancelled, and what it uses is closed next
            if self._watermark is not None:
                self._watermark.close()
                self._watermark = None  # its clients go with it

    def _poll(self) -> int:
        if self._watermark is None:
            self._watermark = self._open_watermark()
        return self._watermark.poll()

    def passed(self, watermark_ms: int) -> None:
        """Note how far the flows have come."""
        self.watermark_ms = max(self.watermark_ms, watermark_ms)
        self._marks = {user: mark for user, mark in self._marks.items() if mark > self.watermark_ms}
        if not self._marks:
            self._wanted.clear()

    def _note(self, user_id: UUID, mark_ms: int) -> None:
        if len(self._marks) >= MARKS:
            oldest = mark_ms - MARK_SECONDS * 1_000
            self._marks = {user: mark for user, mark in self._marks.items() if mark > oldest}
        self._marks[user_id] = max(mark_ms, self._marks.get(user_id, 0))
        self._wanted.set()
