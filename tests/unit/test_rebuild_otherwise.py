"""Trends counted again on purpose: at no moment are half the counts ranked, or left uncounted by whoever gives up."""

from collections.abc import Iterator, Sequence
from typing import Any, cast
from unittest import mock

import pytest

from audit.stores import Stores
from fanline.errors import DependencyUnavailable
from readmodels import trend_marks
from readmodels.effects import Command, Effects, drive
from readmodels.readiness import BUILDING
from rebuild import otherwise

COUNTED = b"12345678"


class Redis:
    """Redis with counts, and the flow, which looks for the marks whenever somebody asks for them."""

    def __init__(self, *, flow_runs: bool = True, gives_up_after: int = 100) -> None:
        self.held: dict[bytes, bytes] = dict.fromkeys(trend_marks.mark_keys(), COUNTED)
        self.held |= {b"tag_use:{%d}" % number: b"" for number in range(6)}
        self.flow_runs, self.batches = flow_runs, gives_up_after
        self.is_counting = False
        self.ranks_what_is_half_there = False

    def scan(self, pattern: bytes) -> Iterator[list[bytes]]:
        found = [key for key in self.held if key.startswith(pattern[:-1])]
        for start in range(0, len(found), 2):
            if not self.batches:
                raise KeyboardInterrupt
            self.batches -= 1
            yield found[start : start + 2]

    def redis(self, commands: Sequence[Command]) -> list[Any]:
        return [self._do(each) for each in commands]

    def drive(self, effects: Effects[Any]) -> Any:
        self._flow()
        return drive(effects, lambda batch: self.redis(batch.commands), lambda query: [])

    def sets(self) -> int:
        return sum(key.startswith(b"tag_use") for key in self.held)

    def marks(self) -> int:
        return sum(key in self.held for key in trend_marks.mark_keys())

    def _do(self, each: Command) -> Any:
        if b"GET" in each.data:
            return self.held.get(each.key)
        removed = self.held.pop(each.key, None)
        if each.key.startswith(b"tag_use") and not self.is_counting:
            self.ranks_what_is_half_there = True
        return int(removed is not None)

    def _flow(self) -> None:
        if not self.flow_runs or (self.marks() == trend_marks.NODES and not self.is_counting):
            return
        if self.is_counting and self.marks():
            self.is_counting = False
            self.held |= dict.fromkeys(trend_marks.mark_keys(), COUNTED)
            self.held |= {b"tag_use:{%d}" % number: b"again" for number in range(6)}
        else:
            self.is_counting = True
            self.held |= dict.fromkeys(trend_marks.mark_keys(), BUILDING + COUNTED)


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with mock.patch.multiple(otherwise, LOOK_SECONDS=0.001, COUNT_SECONDS=0.05):
        yield


def count(redis: Redis) -> None:
    otherwise.count_trends(cast(Stores, redis))


def test_everything_is_counted_again_while_the_flow_ranks_nothing() -> None:
    redis = Redis()
    count(redis)
    assert not redis.ranks_what_is_half_there
    assert redis.marks() == trend_marks.NODES
    assert redis.sets() == 6
    assert {redis.held[b"tag_use:{%d}" % number] for number in range(6)} == {b"again"}


def test_whoever_gives_up_in_between_leaves_no_mark_of_a_count() -> None:
    redis = Redis(gives_up_after=2)
    with pytest.raises(KeyboardInterrupt):
        count(redis)
    assert redis.sets() == 2
    assert redis.marks() == 0


def test_without_the_flow_nothing_that_was_counted_is_deleted() -> None:
    redis = Redis(flow_runs=False)
    with pytest.raises(DependencyUnavailable, match="is it running"):
        count(redis)
    assert redis.sets() == 6
