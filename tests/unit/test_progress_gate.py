"""Progress passes when, and only when, everything before it is acknowledged."""

import random

import pytest

from connectors.lag import PartitionLag
from connectors.messages import Progress
from connectors.progress import ProgressGate


def at(offset: int) -> Progress:
    return Progress("topic", 0, offset)


def test_progress_with_nothing_before_it_passes_at_once() -> None:
    passed: list[Progress] = []
    ProgressGate(passed.extend).progress(at(1))
    assert passed == [at(1)]


def test_progress_waits_for_what_was_sent_before_it_and_not_for_what_was_sent_after() -> None:
    passed: list[Progress] = []
    gate = ProgressGate(passed.extend)
    before = gate.sent()
    gate.progress(at(1))
    gate.sent()
    assert passed == []
    gate.acknowledged(before)
    assert passed == [at(1)]


def test_a_consequence_holds_the_progress_that_its_cause_holds() -> None:
    passed: list[Progress] = []
    gate = ProgressGate(passed.extend)
    cause = gate.sent()
    gate.progress(at(1))
    consequence = gate.sent(cause)
    gate.acknowledged(cause)
    assert passed == []
    gate.acknowledged(consequence)
    assert passed == [at(1)]


@pytest.mark.parametrize("seed", range(50))
def test_in_any_order_of_acknowledgements_progress_stays_in_order_and_never_early(seed: int) -> None:
    chance = random.Random(seed)
    passed: list[Progress] = []
    gate = ProgressGate(passed.extend)
    unanswered = []
    sent = 0
    for _ in range(300):
        act = chance.random()
        if act < 0.4:
            unanswered.append((sent, gate.sent()))
            sent += 1
        elif act < 0.6:
            gate.progress(at(sent))
        elif unanswered:
            gate.acknowledged(unanswered.pop(chance.randrange(len(unanswered)))[1])
        if passed:
            assert all(number >= passed[-1].offset for number, _ in unanswered)
    for _, segment in unanswered:
        gate.acknowledged(segment)
    gate.progress(at(sent))
    offsets = [item.offset for item in passed]
    assert offsets == sorted(offsets)
    assert offsets[-1] == sent


def test_lag_is_nothing_at_the_end_and_grows_while_what_was_read_is_not_applied() -> None:
    lag = PartitionLag(read_offset=10, read_ms=5_000, at_end=True, applied_offset=10, applied_ms=5_000)
    assert (lag.read_lag(9_000), lag.applied_lag(9_000)) == (0.0, 0.0)
    lag.read_offset = 11
    assert lag.applied_lag(9_000) == 4.0
    lag.at_end = False
    assert lag.read_lag(6_500) == 1.5
