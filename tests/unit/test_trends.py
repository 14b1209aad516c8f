"""What counts for a trend, without a server."""

from typing import Any
from uuid import UUID

import pytest

from fanline.ids import first_id_at
from fanline.resp import unpack
from readmodels import trend_ranking, trends
from readmodels.trend_ranking import Entry, Uses, cut, rank, rise
from readmodels.trend_uses import DAY_MS, HOUR_MS, POST, TAG, sample
from readmodels.trends import Changes, Use, history_entity

ADA, BOB, CYD = (UUID(int=number) for number in (1, 2, 3))
NOW_MS = 20_000 * DAY_MS + 15 * HOUR_MS
PEOPLE = {account.bytes for account in (ADA, BOB, CYD)}


def post(**columns: Any) -> dict[str, Any]:
    return {
        "id": first_id_at(NOW_MS), "author_id": str(ADA), "visibility": "public", "repost_of_id": None,
        "in_reply_to_id": None,
    } | columns  # fmt: skip


def changes(*rows: tuple[str, str, dict[str, Any]]) -> Changes:
    return Changes((trends.fact(table, op, row, NOW_MS) for table, op, row in rows), NOW_MS)


def words(found: Changes) -> list[bytes]:
    """The names of the commands or functions."""
    said = [unpack(each.data)[0] for each in found.commands()]
    return [words[1] if words[0] == b"FCALL" else words[0] for words in said]


def counted(found: Changes) -> list[tuple[bytes, bytes, bytes]]:
    """The uses in the first call: account, post and ms."""
    arguments = unpack(found.commands()[0].data)[0][11:]
    return list(zip(arguments[::3], arguments[1::3], arguments[2::3], strict=True))


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
    people = sorted(PEOPLE)
    uses = {"all": Uses(3, people, 0), "two": Uses(2, [ADA.bytes, BOB.bytes], 0), "used": Uses(3, people, 5)}
    assert rank(uses, PEOPLE, 2) == [Entry("all", 4.0, 3), Entry("two", 1.0, 2)]
    assert rank(uses, PEOPLE - {CYD.bytes}, 2) == [Entry("all", 1.0, 2), Entry("two", 1.0, 2)]
    assert rank(uses, PEOPLE, 3) == [Entry("all", 4.0, 3)]
    assert rank(uses, (), 1) == []
    # An author does not count for their own post; of many people the share of some stands for all.
    own = {"own": Uses(3, people, 0, ADA.bytes), "many": Uses(6_000, people, 5_000)}
    assert rank(own, PEOPLE, 2) == [Entry("many", 200.0, 6_000), Entry("own", 1.0, 2)]
    assert rank(own, PEOPLE - {CYD.bytes}, 2) == []


def test_of_one_author_three_posts_are_kept_and_then_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trend_ranking, "KEPT", 4)
    authors = {str(number): b"ada" if number < 5 else b"bob" for number in range(8)}
    entries = [Entry(subject, 9, 9) for subject in authors]
    assert [entry.subject for entry in cut(entries[::-1], authors)] == ["0", "1", "2", "5"]
    assert [entry.subject for entry in cut(entries, dict.fromkeys(authors, b""))] == ["0", "1", "2", "3"]


def test_of_many_people_some_are_looked_at_from_the_newest_to_the_oldest() -> None:
    people = [bytes([number]) for number in range(10)]
    assert sample(people, 10) == people
    assert sample(people, 4) == [people[place] for place in (0, 2, 5, 7)]


def test_the_past_is_whole_days_or_quarters_before_the_window() -> None:
    assert list(TAG.past_blocks(NOW_MS)) == [19_992, 19_993, 19_994, 19_995, 19_996, 19_997, 19_998]
    # It is 15:00: the window began at 9:00, and the quarter that it began in at 6:00.
    assert [block * POST.block_ms - NOW_MS for block in POST.past_blocks(NOW_MS)] == [
        -27 * HOUR_MS, -21 * HOUR_MS, -15 * HOUR_MS
    ]  # fmt: skip
    for kind in (TAG, POST):
        assert kind.kept_ms >= NOW_MS - kind.past_blocks(NOW_MS)[0] * kind.block_ms
        assert kind.kept_blocks(NOW_MS)[0] < kind.past_blocks(NOW_MS)[0]


def test_a_history_has_seven_days_of_texts_and_zeros_where_nothing_was() -> None:
    history = history_entity({20_000: Use(5, 3), 19_990: Use(9, 9)}, 20_000)
    assert history[0] == {"day": str(20_000 * 86_400), "uses": "5", "accounts": "3"}
    assert history[1:] == [
        {"day": str(day * 86_400), "uses": "0", "accounts": "0"} for day in range(19_999, 19_993, -1)
    ]


def test_only_open_reposts_and_answers_are_uses_and_a_deleted_post_leaves_none() -> None:
    assert not changes(("posts", "c", post(repost_of_id=5, visibility="private"))).uses
    reposted = changes(("posts", "c", post(repost_of_id=5)))
    assert words(reposted) == [b"trend_count", b"SADD", b"EXPIRE"]
    assert not reposted.tagged
    gone = changes(("posts", "d", post(in_reply_to_id=5)))
    assert words(gone) == [b"trend_count", b"trend_forget"]
    assert counted(gone) == [(ADA.bytes, first_id_at(NOW_MS).to_bytes(8), b"")]
    assert list(gone.tagged) == [first_id_at(NOW_MS)]


def test_what_is_too_old_to_trend_is_passed_over() -> None:
    old = first_id_at(NOW_MS - 10 * DAY_MS)
    found = changes(
        ("posts", "r", post(id=old, in_reply_to_id=5)), ("likes", "r", like(created_at="2001-01-01T00:00:00Z"))
    )
    assert (found.uses, found.tagged, found.ended, found.commands()) == ({}, {}, {}, [])


def test_a_like_is_counted_at_its_time_and_taken_back_by_its_key() -> None:
    assert trends.milliseconds(like()["created_at"]) == 1_728_050_400_123
    assert counted(changes(("likes", "c", like()))) == [(BOB.bytes, b"", b"1728050400123")]
    assert counted(changes(("likes", "d", {"user_id": str(BOB), "post_id": 5}))) == [(BOB.bytes, b"", b"")]


def test_of_what_was_done_and_undone_in_a_batch_the_last_counts() -> None:
    done, undone = ("likes", "c", like()), ("likes", "d", like())
    assert counted(changes(done, undone)) == [(BOB.bytes, b"", b"")]
    assert words(changes(done, undone, done)) == [b"trend_count", b"SADD", b"EXPIRE"]


def test_what_is_looked_at_for_rankings_does_not_depend_on_batches() -> None:
    done, undone = ("likes", "c", like()), ("likes", "d", like())
    split = [*changes(done).commands(), *changes(undone).commands()]
    whole = changes(done, undone).commands()
    assert [each for each in whole if b"trending" in each.data] == [each for each in split if b"trending" in each.data]
    assert words(changes(done, undone)) == [b"trend_count", b"SADD", b"EXPIRE"]


def test_a_storm_on_one_post_is_three_commands() -> None:
    storm = changes(*(("likes", "c", like(UUID(int=number))) for number in range(1, 101)))
    assert words(storm) == [b"trend_count", b"SADD", b"EXPIRE"]
    assert len(counted(storm)) == 100


def test_another_table_is_no_change_for_trends() -> None:
    with pytest.raises(ValueError, match="no table"):
        changes(("users", "c", {}))
