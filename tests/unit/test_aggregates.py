"""The time series' layout, and what changes make stale in them."""

import pickle
from collections.abc import Generator
from typing import Any
from uuid import UUID, uuid4

import pytest

from readmodels.aggregate_changes import Mark, Stale, mark, settle
from readmodels.aggregates import (
    DAILY,
    DAY,
    HOUR,
    INSTANCE,
    MINUTE,
    RESOLUTIONS,
    Series,
    floor_to,
    oldest_kept,
    parse,
    retention,
    series_between,
)
from readmodels.deliveries import Counted, DeliveryCounts, read, write
from readmodels.effects import Command, Query, Redis

NOW = 1_795_371_000
MADE = "2026-11-22T18:10:42.123456Z"
MINUTE_OF_MADE = 1_795_371_000
ADA, BOB = uuid4(), uuid4()
KEPT = retention(2, 60, 730)


def post(**changes: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "author_id": str(ADA),
        "repost_of_id": None,
        "in_reply_to_account_id": None,
        "created_at": MADE,
    } | changes


@pytest.mark.parametrize("resolution", RESOLUTIONS.values())
def test_a_period_is_made_of_whole_buckets(resolution: Any) -> None:
    assert resolution.period % resolution.width == 0


def test_a_range_of_time_lies_in_the_series_of_its_periods() -> None:
    start = 10 * DAY
    assert [each.start for each in series_between(INSTANCE, MINUTE, start - 60, start + 60)] == [start - DAY, start]
    assert [each.start for each in series_between(INSTANCE, MINUTE, start, start + DAY)] == [start]


def test_all_keys_of_a_scope_share_a_slot() -> None:
    keys = [Series(ADA, resolution, 0).key() for resolution in RESOLUTIONS.values()]
    assert all(b"{%s}" % str(ADA).encode() in key for key in keys)
    assert len(set(keys)) == len(keys)


def test_a_series_of_the_instance_expires_when_its_last_bucket_is_out_of_retention() -> None:
    series = Series(INSTANCE, MINUTE, floor_to(NOW, DAY))
    assert series.expires_at(NOW, KEPT) == series.end + 2 * DAY


def test_a_series_of_an_account_expires_when_nobody_has_built_it_for_weeks() -> None:
    assert Series(ADA, DAILY, 0).expires_at(NOW, KEPT) < NOW
    current = Series(ADA, DAILY, floor_to(NOW, DAILY.period))
    assert current.expires_at(NOW, KEPT) == NOW + 35 * DAY


def test_a_series_that_is_being_built_is_not_read() -> None:
    bucket = NOW.to_bytes(4)
    value = bytes(8) + (5).to_bytes(4) + (6).to_bytes(4)
    assert parse([b"state", b"F", bucket, value]) == {NOW: (5, 6)}
    assert parse([b"state", b"B12345678", bucket, value]) is None
    assert parse([]) is None


def test_a_post_counts_for_its_author_and_whom_it_answers() -> None:
    found = mark("posts", "c", post(in_reply_to_account_id=str(BOB)))
    assert found == Mark(MINUTE_OF_MADE, account=ADA, answered=BOB, actor=ADA)


def test_a_repost_counts_for_the_author_of_the_original() -> None:
    assert mark("posts", "c", post(repost_of_id=4)) == Mark(MINUTE_OF_MADE, account=ADA, post=4, actor=ADA)


def test_with_a_deleted_post_goes_what_it_got_at_any_time() -> None:
    assert mark("posts", "d", post()) == Mark(MINUTE_OF_MADE, account=ADA, gone=ADA)
    assert mark("posts", "d", post(repost_of_id=4)) == Mark(MINUTE_OF_MADE, account=ADA, post=4)


def test_a_like_and_a_follow_count_for_who_gets_them() -> None:
    like = {"user_id": str(ADA), "post_id": 4, "created_at": MADE}
    follow = {"follower_id": str(ADA), "followee_id": str(BOB), "created_at": MADE}
    assert mark("likes", "c", like) == Mark(MINUTE_OF_MADE, post=4, actor=ADA)
    assert mark("likes", "d", like) == Mark(MINUTE_OF_MADE, post=4)
    assert mark("follows", "c", follow) == Mark(MINUTE_OF_MADE, account=BOB, actor=ADA)


def test_changed_profiles_and_follows_change_no_count() -> None:
    assert mark("users", "u", {"id": str(ADA), "created_at": MADE}) is None
    assert mark("follows", "u", {}) is None


@pytest.mark.parametrize("row", [{}, {"created_at": None}, {"created_at": "yesterday"}, post(author_id="nobody")])
def test_a_row_that_cannot_be_read_raises_what_becomes_a_dead_letter(row: dict[str, Any]) -> None:
    with pytest.raises((LookupError, ValueError, TypeError, AttributeError)):
        mark("posts", "c", row)


def test_what_is_collected_survives_a_snapshot() -> None:
    stale = Stale()
    assert not stale
    stale.add(Mark(60, account=ADA, answered=BOB, post=4, gone=ADA, actor=BOB))
    assert stale
    assert pickle.loads(pickle.dumps(stale)) == stale


def perform(effects: Generator[Any, Any, Any], replies: dict[bytes, Any], rows: list[Any]) -> list[Any]:
    """Runs a generator on canned answers (by the name of the command or function); what it asked for."""
    asked: list[Any] = []
    answer: Any = None
    try:
        while True:
            wanted = effects.send(answer)
            asked.append(wanted)
            if isinstance(wanted, Redis):
                answer = [replies.get(name_of(command), 1) for command in wanted.commands]
            else:
                answer = rows
    except StopIteration:
        return asked


def name_of(command: Command) -> bytes:
    words = command.data.split(b"\r\n")
    return words[4] if words[2] == b"FCALL" else words[2]


def queries(asked: list[Any]) -> list[Query]:
    return [each for each in asked if isinstance(each, Query)]


def test_however_many_changes_there_are_they_are_counted_again_by_two_queries() -> None:
    stale = Stale()
    for number in range(500):
        stale.add(Mark(NOW - number % 7 * 60, account=UUID(int=number), actor=ADA))
    assert len(queries(perform(settle(stale, NOW, KEPT), {b"HGET": b"F", b"EXISTS": 1}, []))) == 2


def test_accounts_whose_series_nobody_reads_are_not_counted() -> None:
    stale = Stale()
    stale.add(Mark(NOW, account=ADA))
    asked = queries(perform(settle(stale, NOW, KEPT), {b"HGET": None, b"EXISTS": 1}, []))
    assert all("accounts" not in query.parameters for query in asked)
    assert len(asked) == len(RESOLUTIONS)  # the instance's own are built


def test_buckets_out_of_retention_are_left_alone() -> None:
    stale = Stale()
    stale.add(Mark(floor_to(NOW - 3 * DAY, 60)))
    (query,) = queries(perform(settle(stale, NOW, KEPT), {b"HGET": b"F", b"EXISTS": 1}, []))
    assert sorted(query.parameters["widths"]) == [HOUR.width, DAILY.width]
    assert oldest_kept(MINUTE, NOW, KEPT) > NOW - 3 * DAY


def test_runs_add_up_and_a_repeated_write_changes_nothing() -> None:
    one, other = DeliveryCounts(), DeliveryCounts()
    fields: dict[bytes, dict[bytes, bytes]] = {}

    def send(counted: list[Counted]) -> None:
        effects = write(counted, NOW, KEPT)
        asked = next(effects)
        assert isinstance(asked, Query)
        wanted = effects.send([{"id": person} for person in (ADA, BOB)])
        assert isinstance(wanted, Redis)
        for command in wanted.commands:
            words = command.data.split(b"\r\n")
            if words[2] == b"HSET":
                # Fields and keys have no line break: four bytes of a time of today, and run ids that were looked at.
                fields.setdefault(command.key, {})[words[6]] = words[8]

    one._run, other._run = b"run-one.", b"run-two."
    one.add(ADA, 5, NOW)
    first = one.take(NOW)
    send(first)
    send(first)
    one.add(ADA, 2, NOW + 1)
    other.add(BOB, 10, NOW + 2)
    send(one.take(NOW + 3))
    send(other.take(NOW + 3))
    assert one.take(NOW + 4) == []

    def added_up(scope: UUID | str) -> Any:
        effects = read(scope, MINUTE, floor_to(NOW, 60), floor_to(NOW, 60) + 60)
        wanted = next(effects)
        assert isinstance(wanted, Redis)
        found = [[part for pair in fields.get(each.key, {}).items() for part in pair] for each in wanted.commands]
        with pytest.raises(StopIteration) as stop:
            effects.send(found)
        return stop.value.value

    minute = floor_to(NOW, 60)
    assert added_up(INSTANCE) == {minute: (17,)}
    assert [added_up(person) for person in (ADA, BOB)] == [{minute: (7,)}, {minute: (10,)}]
