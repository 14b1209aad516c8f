"""What a row change does to counts and flags, and how a batch of them becomes commands."""

import struct
from typing import Any
from uuid import UUID

import pytest

from fanline.changes import RowChange
from fanline.resp import unpack
from readmodels import incremental
from readmodels.applying import Batch, Routed
from readmodels.counts import ACCOUNT_COUNTS, STATUS_COUNTS, STATUSES, account_members, day_of_text, status_members
from readmodels.effects import Query
from readmodels.engagement import FORGET, GONE, PRESENT, effects_of
from readmodels.flags import FLAGS, MUTED, SETS, Flags, by_poll, entity_of, flags, sets, vote
from readmodels.incremental import Id, Kind
from tests.unit.cockroach_grammar import faults

ONE, OTHER = str(UUID(int=1)), str(UUID(int=2))
PLACE = incremental.place(2, 0)


def change(table: str, row: dict[str, Any], op: Any = "c", position: tuple[int, int] = (10, 20)) -> RowChange:
    return RowChange(table, op, row, position, 0, 7)


def post(**columns: Any) -> dict[str, Any]:
    return {
        "id": 99,
        "author_id": ONE,
        "visibility": "public",
        "in_reply_to_id": None,
        "repost_of_id": None,
        "created_at": "2026-11-22T23:59:59.5Z",
    } | columns


def touched(found: RowChange) -> set[tuple[str, int | str]]:
    return {(effect.kind.name, effect.identifier) for effect in effects_of(found)}


def test_a_like_changes_a_count_of_the_post_and_a_flag_of_the_person() -> None:
    assert touched(change("likes", {"user_id": ONE, "post_id": 5})) == {("status_counts", 5), ("flags", ONE)}


def test_a_row_that_a_scan_has_read_may_be_counted_already_so_its_values_are_loaded_again() -> None:
    found = effects_of(change("likes", {"user_id": ONE, "post_id": 5}, "r", (1_747_243_394_200_039_000, 0)))
    assert [effect.does for effect in found] == [FORGET, FORGET]


def test_a_follow_changes_a_count_of_each_and_their_mutual_follows_are_told_apart() -> None:
    there, back = ({"follower_id": a, "followee_id": b} for a, b in ((ONE, OTHER), (OTHER, ONE)))
    assert touched(change("follows", there)) == {("account_counts", ONE), ("account_counts", OTHER)}
    of_one = [e.does[20:28] for row in (there, back) for e in effects_of(change("follows", row)) if e.identifier == ONE]  # type: ignore[index]
    assert len(set(of_one)) == 2


def test_a_new_post_is_counted_for_its_author_and_its_counts_are_wanted_at_once() -> None:
    effects = effects_of(change("posts", post()))
    assert (STATUS_COUNTS, 99, PRESENT) in effects
    [counted] = [effect.does for effect in effects if effect.kind is ACCOUNT_COUNTS]
    assert isinstance(counted, bytes)
    assert struct.unpack(">QQIQBBI", counted) == (10, 20, 7, 99, STATUSES, 1, day_of_text("2026-11-22"))


def test_a_private_reply_is_not_counted_for_what_it_answers_and_a_direct_post_not_for_its_author() -> None:
    assert ("status_counts", 4) in touched(change("posts", post(in_reply_to_id=4, visibility="unlisted")))
    assert ("status_counts", 4) not in touched(change("posts", post(in_reply_to_id=4, visibility="private")))
    assert touched(change("posts", post(visibility="direct"))) == {("status_counts", 99)}


def test_a_repost_changes_the_original_and_what_its_author_has_reposted() -> None:
    assert touched(change("posts", post(repost_of_id=4))) == {
        ("status_counts", 99),
        ("status_counts", 4),
        ("account_counts", ONE),
        ("flags", ONE),
    }


def test_an_update_counts_nothing() -> None:
    assert effects_of(change("posts", post(), op="u")) == []


def test_a_row_of_a_snapshot_makes_values_missing_and_a_deletion_leaves_nothing() -> None:
    like = {"user_id": ONE, "post_id": 5}
    assert {e.does for e in effects_of(change("likes", like, op="r", position=(0, 0)))} == {FORGET}
    assert (STATUS_COUNTS, 99, GONE) in effects_of(change("posts", post(), op="d"))
    assert (STATUS_COUNTS, 99, GONE) in effects_of(change("posts", post(), op="d", position=(0, 0)))
    assert {e.does for e in effects_of(change("users", {"id": ONE}, op="d"))} == {GONE}


def test_a_vote_for_an_option_that_no_set_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 32 options"):
        effects_of(change("poll_votes", {"poll_id": 3, "voter_id": ONE, "position": 32}))


def batch(*changes: RowChange) -> list[list[bytes]]:
    writes = Batch(Routed(PLACE, effects_of(found)) for found in changes).writes()
    return [unpack(data)[0] for kind in writes for data in kind.data]


def test_a_storm_on_one_post_is_one_command_for_it() -> None:
    likes = [change("likes", {"user_id": str(UUID(int=n)), "post_id": 5}, position=(1, n)) for n in range(1, 101)]
    commands = batch(*likes)
    of_post = [words for words in commands if words[3] == b"c:{5}"]
    assert len(commands) == 101
    assert len(of_post) == 1
    assert len(of_post[0][-1]) == len(PLACE) + 100 * 34


def test_what_is_gone_outweighs_changes_in_whatever_order() -> None:
    like, deletion = change("likes", {"user_id": ONE, "post_id": 99}), change("posts", post(), op="d")
    for order in ((like, deletion), (deletion, like)):
        [command] = [words for words in batch(*order) if b"c:{99}" in words]
        assert command[:3] == [b"SET", b"c:{99}", incremental.GONE]


def test_counts_are_the_members_of_the_entities() -> None:
    assert status_members(struct.pack(">4I", 1, 2, 3, 4)) == (
        b'"replies_count":1,"reblogs_count":2,"favourites_count":3'
    )
    day = day_of_text("2026-11-22T23:59:59Z")
    assert account_members(struct.pack(">3IQI", 1, 2, 3, 99, day)) == (
        b'"followers_count":1,"following_count":2,"statuses_count":3,"last_status_at":"2026-11-22"'
    )
    assert account_members(struct.pack(">3IQI", 0, 0, 0, 0, 0)).endswith(b'"last_status_at":null')
    assert status_members(b"") == account_members(b"") == b""


def row_of_flags(**found: list[int]) -> dict[str, Any]:
    return {name: found.get(name, []) for name in SETS}


def test_flags_are_read_as_they_were_loaded() -> None:
    votes = sorted([vote(70, 0), vote(70, 2), vote(71, 1)], reverse=True)
    payload = FLAGS.encode(row_of_flags(reblogged=[9, 5], favourited=[9], muted=[3], votes=votes))
    assert [ids for _, ids in sets(payload)] == [(5, 9), (9,), (), (), (3,), tuple(reversed(votes))]
    found = flags(payload)
    assert entity_of(found.bits(9, 9)) == {
        "favourited": True,
        "reblogged": True,
        "bookmarked": False,
        "muted": False,
        "pinned": False,
    }
    assert entity_of(found.bits(4, 3))["muted"], "a reply is muted with its thread"
    assert not entity_of(found.bits(3, 2))["muted"], "a post is not muted because another thread is"
    assert found.votes == {70: [0, 2], 71: [1]} == by_poll(sorted(votes))


def test_above_the_horizon_flags_are_known_and_below_it_they_are_not() -> None:
    found = Flags(50, {60: 1 << MUTED}, 0, {})
    assert found.knows(51, 51)
    assert not found.knows(51, 50)
    assert not found.knows(50, 60)


@pytest.mark.parametrize(("kind", "subject"), [(STATUS_COUNTS, 5), (ACCOUNT_COUNTS, UUID(ONE)), (FLAGS, UUID(ONE))])
def test_on_cockroachdb_a_value_is_loaded_with_the_time_that_its_query_sees(kind: Kind, subject: Id) -> None:
    incremental.use_dialect("cockroach")
    try:
        loading = incremental.load([(kind, subject)])
        query = next(loading)
        assert isinstance(query, Query)
        assert "cluster_logical_timestamp()" in query.sql
        assert faults(query.sql.replace("%(ids)s", "NULL")) == []
    finally:
        incremental.use_dialect("postgres")
    value = incremental.held({"hybrid_time": "1747243394200039000.0000000002"}, b"payload")
    assert incremental.body(value) == b"payload"
    assert value[-17:] == b"C" + struct.pack(">QQ", 1747243394200039000, 2)


def test_a_body_is_told_from_a_mark_from_nothing_and_from_an_earlier_layout() -> None:
    row = {"snapshot": "10:20:12,15", "log_end": 500}
    assert incremental.body(incremental.held(row, b"payload")) == b"payload"
    assert incremental.body(incremental.GONE) == b""
    assert incremental.body(incremental.MARKED + b"12345678") is None
    assert incremental.body((1_790_000_000_000_000).to_bytes(8) + b"{}") is None
    assert incremental.body(None) is None
