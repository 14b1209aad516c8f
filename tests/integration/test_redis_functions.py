"""The functions that keep followers, timelines and documents, on a real Valkey."""

import itertools
import random
from uuid import UUID

import pytest

from fanline.ids import pack_id
from readmodels import documents, followers, following, timelines
from readmodels.cards import STATUS_CARD
from readmodels.effects import call, command, drive
from readmodels.entries import complete_above, newest_first, pack_entry
from readmodels.followers import Edge, chunk_index
from readmodels.following import Limits
from tests.integration.redis_commands import Redis

AUTHOR, VIEWER = UUID(int=1), UUID(int=2)
GENERATION = b"generatn"


def edge(follower: UUID, follows: bool, position: tuple[int, int]) -> Edge:
    return Edge(follower, AUTHOR, follows, 0, position)


def all_followers(redis: Redis) -> list[bytes]:
    found: list[bytes] = []
    index, chunks = 0, 1
    while index < chunks:
        ids, chunks = redis(followers.read_chunk(AUTHOR, index))[0]
        members = followers.split_ids(ids)
        assert all(chunk_index(member, chunks) == index for member in members)
        found += members
        index += 1
    return found


def test_a_row_of_a_snapshot_that_is_read_again_brings_no_follow_back_that_has_ended(redis: Redis) -> None:
    there: list[dict[str, UUID]] = [{"follower_id": VIEWER, "followee_id": AUTHOR}]
    snapshot = Edge(VIEWER, AUTHOR, True, 0, followers.NOW, ordered=False)
    end = edge(VIEWER, False, (7, 7))

    def take(*edges: Edge) -> list[bytes]:
        """What is kept after these."""
        drive(
            following.apply_edges(edges, Limits(800, 100, 16, 1_000)),
            lambda batch: redis(*batch.commands),
            lambda query: there if query.sql == followers.THERE else [{"id": AUTHOR}],
        )
        return all_followers(redis)

    assert take(snapshot) == [VIEWER.bytes]
    there.clear()
    assert take(end) == []
    other = UUID(int=3)
    assert take(edge(other, True, (9, 9))) == [other.bytes]
    assert take(snapshot, end) == [other.bytes]


def test_chunks_hold_each_follower_once_while_they_split_and_shrink(redis: Redis) -> None:
    dice = random.Random(5)
    people = [UUID(int=dice.getrandbits(128)) for _ in range(600)]
    expected: set[bytes] = set()
    for step in range(3_000):
        person, follows = dice.choice(people), dice.random() < 0.7
        reply = redis(followers.apply(edge(person, follows, (step + 1, step + 1)), 16))[0]
        expected = expected | {person.bytes} if follows else expected - {person.bytes}
        assert reply[1] == len(expected)
    found = all_followers(redis)
    assert sorted(found) == sorted(expected)


def test_a_replayed_follow_does_not_undo_the_unfollow_that_came_after_it(redis: Redis) -> None:
    follow, unfollow = edge(VIEWER, True, (10, 11)), edge(VIEWER, False, (12, 13))
    for change in (follow, unfollow):
        redis(followers.apply(change, 16))
    assert redis(followers.apply(follow, 16))[0][:2] == [0, 0]
    assert all_followers(redis) == []


def test_places_that_differ_by_a_nanosecond_are_told_apart(redis: Redis) -> None:
    at = 1_747_243_394_200_039_000
    apart = [(at, 1 << 33), (at, (1 << 33) + 1), (at + 1, 0), (at + 1, 1)]
    for first, second in itertools.pairwise(apart):
        redis(followers.forget(AUTHOR))
        assert redis(followers.apply(edge(VIEWER, True, second), 16))[0][3] == 0
        assert redis(followers.apply(edge(VIEWER, False, first), 16))[0][:4] == [0, 1, b"push", 1]
        assert redis(followers.apply(edge(VIEWER, False, second), 16))[0][3] == 0


def test_rows_of_one_copy_share_a_position_and_all_count(redis: Redis) -> None:
    for number in range(5):
        redis(followers.apply(edge(UUID(int=100 + number), True, (10, 11)), 16))
    assert len(all_followers(redis)) == 5


def test_restored_followers_are_those_of_the_database(redis: Redis) -> None:
    dice = random.Random(7)
    people = [dice.getrandbits(128).to_bytes(16) for _ in range(100)]
    redis(*followers.restore(AUTHOR, people, 16, celebrity=True))
    assert sorted(all_followers(redis)) == sorted(people)
    assert redis(command(followers.celebrities_key(), b"SISMEMBER", AUTHOR.bytes)) == [1]


def read(redis: Redis) -> tuple[int | None, list[int]]:
    header, items = redis(*timelines.read(VIEWER))
    floor = complete_above(header[0] if header else None, GENERATION)
    return floor, [entry.id for entry in newest_first(items)]


def build(redis: Redis, posts: list[int], floor: int, cap: int) -> None:
    key = timelines.timeline_key(VIEWER)
    assert redis(call(b"timeline_begin", [key], b"12345678", GENERATION, 60)) == [1]
    entries = [pack_entry(post_id, None) for post_id in posts]
    assert redis(call(b"timeline_merge", [key], b"12345678", pack_id(floor), cap, 3600, *entries)) == [1]


def test_a_push_to_a_cold_timeline_does_nothing(redis: Redis) -> None:
    assert redis(timelines.push(VIEWER, pack_entry(1, None))) == [0]
    assert read(redis) == (None, [])


def test_a_push_during_a_build_is_kept(redis: Redis) -> None:
    key = timelines.timeline_key(VIEWER)
    redis(call(b"timeline_begin", [key], b"12345678", GENERATION, 60))
    redis(timelines.push(VIEWER, pack_entry(9, None)))
    assert read(redis)[0] is None
    redis(call(b"timeline_merge", [key], b"12345678", pack_id(0), 10, 3600, pack_entry(8, None)))
    assert read(redis) == (0, [9, 8])


def test_only_the_build_that_placed_the_marker_may_end_it(redis: Redis) -> None:
    key = timelines.timeline_key(VIEWER)
    redis(call(b"timeline_begin", [key], b"12345678", GENERATION, 60))
    assert redis(call(b"timeline_begin", [key], b"another!", GENERATION, 60)) == [0]
    assert redis(call(b"timeline_merge", [key], b"another!", pack_id(0), 10, 3600)) == [0]


def test_a_timeline_of_another_generation_is_built_again(redis: Redis) -> None:
    build(redis, [3, 2], 0, 10)
    key = timelines.timeline_key(VIEWER)
    assert redis(call(b"timeline_begin", [key], b"12345678", b"another!", 60)) == [1]


@pytest.mark.parametrize("order", ["in order", "backwards"])
def test_a_cut_keeps_the_newest_and_raises_the_floor_to_the_newest_that_went(redis: Redis, order: str) -> None:
    build(redis, [], 0, 10)
    posts = [(1 << 40) + (n << 16) for n in range(30)]
    for post_id in posts if order == "in order" else reversed(posts):
        redis(timelines.push(VIEWER, pack_entry(post_id, None)))
    assert redis(timelines.compact(VIEWER, 10)) == [20]
    floor, kept = read(redis)
    assert floor is not None
    assert [post_id for post_id in kept if post_id > floor] == [
        post_id for post_id in reversed(posts) if post_id > floor
    ]
    assert len([post_id for post_id in kept if post_id > floor]) == 10


def test_a_backfill_takes_over_the_floor_of_the_recent_list(redis: Redis) -> None:
    build(redis, [50, 40], 0, 10)
    recent = [b"F" + pack_id(45) + bytes(8), pack_entry(46, None), pack_entry(60, 30)]
    assert redis(timelines.backfill(VIEWER, recent, 10)) == [1]
    assert read(redis) == (45, [60, 50, 46, 40])


def test_a_cut_keeps_the_time_to_live(redis: Redis) -> None:
    build(redis, [], 0, 10)
    for number in range(1, 40):
        redis(timelines.push(VIEWER, pack_entry(number << 16, None)))
    redis(timelines.compact(VIEWER, 10))
    assert redis(command(timelines.timeline_key(VIEWER), b"TTL"))[0] > 3_500


def test_a_document_with_an_older_token_does_not_replace_a_newer_one(redis: Redis) -> None:
    first, second = (redis(call(b"document_token", [documents.TOKEN_KEY]))[0] for _ in range(2))
    assert second > first
    key = STATUS_CARD.key(7)

    def put(token: int, body: bytes) -> int:
        return int(redis(call(b"document_set", [key], token.to_bytes(8), body, 60))[0])

    redis(command(key, b"SET", first.to_bytes(8) + documents.RESERVED))
    assert put(second, b"new") == 1
    assert put(first, b"old") == 0
    assert documents.body(redis(documents.read((STATUS_CARD, 7)))[0]) == b"new"


def test_a_reserved_document_is_missing_and_can_be_written(redis: Redis) -> None:
    key = STATUS_CARD.key(7)
    token = redis(call(b"document_token", [documents.TOKEN_KEY]))[0].to_bytes(8)
    redis(command(key, b"SET", token + documents.RESERVED))
    assert documents.body(redis(documents.read((STATUS_CARD, 7)))[0]) is None
    assert redis(call(b"document_set", [key], token, b"x", 60)) == [1]


def test_a_document_that_was_lost_while_it_was_written_stays_missing(redis: Redis) -> None:
    token = redis(call(b"document_token", [documents.TOKEN_KEY]))[0].to_bytes(8)
    assert redis(call(b"document_set", [STATUS_CARD.key(7)], token, b"old", 60)) == [0]
    assert redis(documents.read((STATUS_CARD, 7))) == [None]
