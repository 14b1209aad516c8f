"""The breaker leaves a dead dependency alone and finds out by one call at a time whether it is back."""

import pytest

from api.breaker import Breaker, CircuitOpen


class Down(Exception):
    """The dependency failed."""


def fail(breaker: Breaker) -> None:
    with pytest.raises(Down), breaker.guard():
        raise Down


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [1_000.0]
    monkeypatch.setattr("circuitbreaker.monotonic", lambda: time[0])
    return time


def test_it_opens_after_failures_in_a_row(now: list[float]) -> None:
    breaker = Breaker(Down, failures=2, pause=5)
    fail(breaker)
    with breaker.guard():
        pass
    fail(breaker)
    assert breaker.closed
    fail(breaker)
    assert not breaker.closed
    with pytest.raises(CircuitOpen), breaker.guard():
        pytest.fail("an open breaker lets nothing through")


def test_one_caller_probes_while_the_others_stay_away(now: list[float]) -> None:
    breaker = Breaker(Down, failures=1, pause=5)
    fail(breaker)
    now[0] += 6
    with breaker.guard(), pytest.raises(CircuitOpen), breaker.guard():
        pytest.fail("two probes at once")
    assert breaker.closed
    with breaker.guard(), breaker.guard():
        pass


def test_a_failed_probe_opens_it_for_another_pause(now: list[float]) -> None:
    breaker = Breaker(Down, failures=1, pause=5)
    fail(breaker)
    now[0] += 6
    fail(breaker)
    now[0] += 3
    with pytest.raises(CircuitOpen), breaker.guard():
        pytest.fail("the pause is not over")
    now[0] += 3
    with breaker.guard():
        pass
    assert breaker.closed


def test_a_probe_that_was_cancelled_decides_nothing(now: list[float]) -> None:
    breaker = Breaker(Down, failures=1, pause=5)
    fail(breaker)
    now[0] += 6
    with pytest.raises(KeyboardInterrupt), breaker.guard():
        raise KeyboardInterrupt
    assert not breaker.closed
    with breaker.guard():
        pass
    assert breaker.closed
