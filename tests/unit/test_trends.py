"""What counts for a trend, without a server."""

from typing import Any
from uuid import UUID

import pytest

from fanline.ids import first_id_at
from fanline.resp import unpack
from readmodels import trends
from readmodels.trend_ranking import Entry, Uses, baseline_days, rank, rise
from readmodels.trends import DAY_MS, HOUR_MS, Changes, Use, history_entity

ADA, BOB, CYD = (UUID(int=number) for number in (1, 2, 3))
NOW_MS = 20_000 * DAY_MS + 15 * HOUR_MS
PEOPLE = {account.bytes for account in (ADA, BOB, CYD)}


def post(**columns: Any) -> dict[str, Any]:
    return {
        "id": first_id_at(NOW_MS), "author_id": str(ADA), "visibility": "public", "repost_of_id": None,
        "in_reply_to_id": None,
    } | columns  # fmt: skip


def changes(*rows: tuple[str, str, dict[str, Any]]) -> Changes:
    return Changes(trends.fact(table, op, row, NOW_MS) for table, op, row in rows)


def words(found: Changes) -> list[bytes]:
    """The commands' names."""
    return [use.data.split(b"\r\n")[2] for use in found.commands()]


def like(person: UUID = BOB, created_at: str = "2024-10-04T14:00:00.123456Z") -> dict[str, Any]:
    return {"user_id": str(person), "post_id": 5, "created_at": created_at}


@pytest.mark.parametrize(
    ("observed", "expected", "score"),
    [(40, 10, 90.0), (1_040, 1_000, 1.6), (5, 0, 16.0), (10, 10, 0.0), (3, 10, 0.0), (1, 0, 0.0)],
)
def test_what_rises_above_its_own_past_counts_and_mere_volume_does_not(
    observed: int, expected: float, score: float
) -> None:
    assert rise(observed, expected) == score


def test_those_who_may_not_count_and_too_few_make_no_trend() -> None:
    uses = {"all": Uses(PEOPLE, 0), "two": Uses({ADA.bytes, BOB.bytes}, 0), "used": Uses(PEOPLE, 5)}
    assert rank(uses, PEOPLE, 2) == [Entry("all", 4.0, 3), Entry("two", 1.0, 2)]
    assert rank(uses, PEOPLE - {CYD.bytes}, 2) == [Entry("all", 1.0, 2), Entry("two", 1.0, 2)]
    assert rank(uses, PEOPLE, 3) == [Entry("all", 4.0, 3)]
    assert rank(uses, (), 1) == []


def test_the_past_is_seven_whole_days_before_the_window() -> None:
    assert baseline_days(NOW_MS) == [19_998, 19_997, 19_996, 19_995, 19_994, 19_993, 19_992]


def test_a_history_has_seven_days_of_texts_and_zeros_where_nothing_was() -> None:
    history = history_entity({20_000: Use(5, 3), 19_990: Use(9, 9)}, 20_000)
    assert history[0] == {"day": str(20_000 * 86_400), "uses": "5", "accounts": "3"}
    assert history[1:] == [
        {"day": str(day * 86_400), "uses": "0", "accounts": "0"} for day in range(19_999, 19_993, -1)
    ]


def test_only_open_reposts_and_answers_are_uses_and_a_deleted_post_leaves_none() -> None:
    assert not changes(("posts", "c", post(repost_of_id=5, visibility="private"))).uses
    reposted = changes(("posts", "c", post(repost_of_id=5)))
    assert words(reposted) == [b"ZADD", b"EXPIRE", b"SADD", b"EXPIRE"]
    assert not reposted.tagged
    gone = changes(("posts", "d", post(in_reply_to_id=5)))
    assert words(gone) == [b"ZREM", b"DEL"]
    assert list(gone.tagged) == [first_id_at(NOW_MS)]


def test_what_is_too_old_to_trend_is_passed_over() -> None:
    old = first_id_at(NOW_MS - 10 * DAY_MS)
    found = changes(
        ("posts", "r", post(id=old, in_reply_to_id=5)), ("likes", "r", like(created_at="2001-01-01T00:00:00Z"))
    )
    assert (found.uses, found.tagged, found.ended, found.commands()) == ({}, {}, {}, [])


def test_a_like_is_counted_at_its_time_and_taken_back_by_its_key() -> None:
    member = BOB.bytes + b"f" + bytes(8)
    assert trends.milliseconds(like()["created_at"]) == 1_728_050_400_123
    [added, *_] = changes(("likes", "c", like())).commands()
    assert unpack(added.data) == [[b"ZADD", b"post_use:{5}", b"1728050400123", member]]
    [taken] = changes(("likes", "d", {"user_id": str(BOB), "post_id": 5})).commands()
    assert unpack(taken.data) == [[b"ZREM", b"post_use:{5}", member]]


def test_of_what_was_done_and_undone_in_a_batch_the_last_counts() -> None:
    done, undone = ("likes", "c", like()), ("likes", "d", like())
    assert words(changes(done, undone)) == [b"ZREM"]
    assert words(changes(done, undone, done)) == [b"ZADD", b"EXPIRE", b"SADD", b"EXPIRE"]


def test_a_storm_on_one_post_is_four_commands() -> None:
    storm = changes(*(("likes", "c", like(UUID(int=number))) for number in range(1, 101)))
    assert words(storm) == [b"ZADD", b"EXPIRE", b"SADD", b"EXPIRE"]
    assert len(unpack(storm.commands()[0].data)[0]) == 2 + 2 * 100


def test_another_table_is_no_change_for_trends() -> None:
    with pytest.raises(ValueError, match="no table"):
        changes(("users", "c", {}))
