"""The rate limit of one process; that processes share it is tested with Redis."""

from typing import Any

from api.limiter import RateLimiter
from fanline.clock import ManualClock


def limiter(clock: ManualClock) -> RateLimiter:
    unused: Any = None  # counting asks nobody
    return RateLimiter(unused, clock, window_seconds=300)


async def test_a_subject_may_do_its_limit_and_no_more() -> None:
    limits = limiter(ManualClock())
    allowed = [not limits.hit("user:1", 3).exceeded for _ in range(5)]
    assert allowed == [True, True, True, False, False]


async def test_subjects_do_not_share_a_limit() -> None:
    limits = limiter(ManualClock())
    limits.hit("user:1", 1)
    assert not limits.hit("user:2", 1).exceeded


async def test_the_window_ends_at_the_time_that_is_told() -> None:
    clock = ManualClock()
    limits = limiter(clock)
    first = limits.hit("user:1", 1)
    assert first.remaining == 0
    clock.advance(first.reset_ms - clock.now_ms() - 1)
    assert limits.hit("user:1", 1).exceeded
    clock.advance(1)
    assert not limits.hit("user:1", 1).exceeded


async def test_looking_costs_nothing() -> None:
    limits = limiter(ManualClock())
    assert [limits.peek("user:1", 2).remaining for _ in range(3)] == [2, 2, 2]
