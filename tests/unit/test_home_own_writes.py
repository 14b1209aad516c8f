"""Whoever wrote waits until the watermark has passed the write, and the watermark moves only while somebody waits."""

import asyncio
from typing import Any, cast
from uuid import UUID

from api.read_your_writes import OwnWrites
from fanline.errors import DependencyUnavailable

WRITER, OTHER = UUID(int=1), UUID(int=2)


class Steps:
    """A watermark that goes through some steps; an error among them is raised."""

    def __init__(self, *steps: int | Exception) -> None:
        self.steps = list(steps)
        self.polls = 0
        self.closed = False

    def poll(self) -> int:
        self.polls += 1
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    def close(self) -> None:
        self.closed = True


def own_writes(watermark: Steps) -> OwnWrites:
    unused = cast(Any, None)
    return OwnWrites(unused, unused, lambda: watermark)


async def test_a_mark_that_another_process_left_makes_its_writer_wait_until_it_is_passed(
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr("api.read_your_writes.POLL_SECONDS", 0)
    watermark = Steps(50, DependencyUnavailable("Kafka is away."), 99, 100)
    writes = own_writes(watermark)
    running = asyncio.create_task(writes.run())
    await asyncio.sleep(0.01)
    assert watermark.polls == 0
    assert writes.is_waiting_for(WRITER, b"100")
    assert not writes.is_waiting_for(OTHER, None)
    async with asyncio.timeout(5):
        while writes.is_waiting(WRITER):  # noqa: ASYNC110 - the passing is what is waited for
            await asyncio.sleep(0)
    assert writes.watermark_ms == 100
    assert not writes.is_waiting_for(WRITER, b"100")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert watermark.closed
    assert watermark.polls == 4


def test_the_watermark_never_goes_back_and_only_later_marks_wait() -> None:
    writes = own_writes(Steps())
    writes.passed(100)
    writes.passed(50)
    assert writes.watermark_ms == 100
    assert not writes.is_waiting_for(WRITER, b"100")
    assert writes.is_waiting_for(WRITER, b"101")
    assert writes.is_waiting_for(WRITER, b"90"), "an older mark does not hide a newer one"
