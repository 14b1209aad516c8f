"""Streams: names, positions, who is told of a post, and what waits in a client's queue."""

import asyncio
import json
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.auth.principal import Principal
from api.errors import ApiError
from api.streaming.batch import DISPATCHED, Batch
from api.streaming.client import DELETE, NOTIFICATION, UPDATE, Client, Ended, Happening
from api.streaming.hub import shows_in
from api.streaming.log import LogReader
from api.streaming.matching import hides, shows_at_home
from api.streaming.position import (
    ARRIVAL_MARGIN_MS,
    KEPT,
    KEPT_ARRIVALS,
    POST_MARGIN_MS,
    Arrivals,
    Position,
    Window,
    new_position,
    parse_position,
)
from api.streaming.recent import PostEvent, Recent, post_event
from api.streaming.streams import Stream, check_access, parse_stream
from connectors.messages import UNUSABLE, Message
from fanline.changes import RowChange
from fanline.settings import Settings
from readmodels.entries import Entry
from readmodels.home_rules import PostFacts, Viewer

ADA, BOB, CAROL = (uuid4().bytes for _ in range(3))
PLACE = ("cdc.posts", 0)


def principal(*scopes: str, user: UUID | None = None) -> Principal:
    return Principal(uuid4(), uuid4(), user, frozenset(scopes), 2**60)


def event(identifier: int = 1, kind: str = UPDATE, *, lsn: int = 1, offset: int = 0, **row: object) -> PostEvent:
    values = {
        "id": identifier,
        "author_id": str(UUID(bytes=ADA)),
        "repost_of_id": None,
        "in_reply_to_account_id": None,
        "visibility": "public",
        "edited_at": None,
    } | row
    op = {UPDATE: "c", DELETE: "d", "status.update": "u"}[kind]
    made = post_event(RowChange("posts", op, values, (lsn, lsn), 1_000, 1), PLACE, offset)  # type: ignore[arg-type]
    assert made is not None
    return made


@pytest.mark.parametrize("name", ["list", "direct", "", "nonsense", "hashtag"])
def test_a_stream_that_is_not_offered_is_a_400(name: str) -> None:
    with pytest.raises(ApiError) as error:
        parse_stream(name)
    assert error.value.status == 400


def test_a_hashtag_is_its_lower_case_name() -> None:
    assert parse_stream("hashtag", "#Cats") == Stream("hashtag", "cats")
    assert parse_stream("hashtag", "cats").label == b'["hashtag","cats"]'
    assert parse_stream("user").label == b'["user"]'


def test_a_token_opens_what_its_scopes_name() -> None:
    check_access(Stream("user"), principal("read", user=uuid4()))
    check_access(Stream("user:notification"), principal("read:notifications", user=uuid4()))
    check_access(Stream("public"), principal("read:statuses"))
    for stream, caller, status in (
        (Stream("user:notification"), principal("read:statuses", user=uuid4()), 403),
        (Stream("public"), principal("write", user=uuid4()), 403),
        (Stream("user"), principal("read"), 422),
    ):
        with pytest.raises(ApiError) as error:
            check_access(stream, caller)
        assert error.value.status == status


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 2**62), unique=True, max_size=200), st.integers(0, 2**50), st.integers(0, 60_000))
def test_a_position_survives_its_text_and_names_what_was_sent_above_its_floor(
    ids: list[int], log_ms: int, together_ms: int
) -> None:
    position = Position(log_ms=log_ms)
    for identifier in ids:
        position.posts.add(identifier)
        position.notifications.add(identifier, 2**41 + identifier % (together_ms + 1))
    again = parse_position(position.text())
    assert again == position
    assert len(position.text()) < 1_500
    assert len(again.posts.ids) <= KEPT
    assert {identifier for identifier in ids if identifier > again.posts.floor} == set(again.posts.ids)


def test_a_late_post_with_an_older_id_is_still_missing_after_a_newer_one() -> None:
    window = Window(POST_MARGIN_MS)
    older, newer = 1_000_000 << 16, 1_000_500 << 16
    window.add(newer)
    assert window.floor < older
    assert not window.has(older)
    window.add((1_000_500 + POST_MARGIN_MS + 1) << 16)
    assert window.floor == newer


@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=200))
def test_of_what_was_stored_since_the_floor_the_newest_are_named_and_all_before_was_sent(stored: list[int]) -> None:
    arrivals = Arrivals()
    for identifier, ms in enumerate(stored):
        arrivals.add(identifier, ms)
    assert arrivals.floor_ms == max(0, max(stored) - ARRIVAL_MARGIN_MS)
    assert len(arrivals.ids) <= KEPT_ARRIVALS
    since = sorted((ms, each) for each, ms in enumerate(stored) if ms >= arrivals.floor_ms)
    assert set(arrivals.ids) == {each for _, each in since[-KEPT_ARRIVALS:]}


def test_a_notification_of_long_ago_is_still_missing_when_it_was_stored_late() -> None:
    arrivals = Arrivals()
    arrivals.add(2_000_000 << 16, 2_000_000)
    late = 1_000 << 16
    assert not arrivals.has(late)
    arrivals.add(late, 2_000_100)
    assert arrivals.has(late)


def test_a_plain_id_means_everything_above_it_and_what_was_stored_since_its_time() -> None:
    position = parse_position(str(123 << 16))
    assert position.posts.floor == 123 << 16
    assert position.notifications == Arrivals(123, {123 << 16: 123})


@pytest.mark.parametrize("text", ["x", "AAAA", "a" * 3_000, "é", "9" * 20, '"', "kwE=", "lgIAAJDPQAAAAAAAAACQ"])
def test_a_text_that_is_no_position_is_a_400(text: str) -> None:
    with pytest.raises(ApiError) as error:
        parse_position(text)
    assert error.value.status == 400


def test_who_connects_now_may_still_be_told_of_what_has_its_id_or_time_already() -> None:
    position = new_position(1_000_000)
    assert position.posts.floor < 1_000_000 << 16
    assert position.notifications.floor_ms < 1_000_000


def test_home_s_rules_decide_who_is_told() -> None:
    bob = Viewer(BOB, frozenset([ADA]))
    assert shows_at_home(event(), bob, {}, 0)
    assert not shows_at_home(event(), Viewer(BOB, frozenset()), {}, 0)
    assert not shows_at_home(event(visibility="direct"), bob, {}, 0)
    assert shows_at_home(event(visibility="direct"), Viewer(ADA, frozenset()), {}, 0)
    assert not shows_at_home(event(in_reply_to_account_id=str(UUID(bytes=CAROL))), bob, {}, 0)
    repost = event(2, repost_of_id=1)
    assert shows_at_home(repost, bob, {1: PostFacts(CAROL)}, 0)
    assert not shows_at_home(repost, bob, {1: None}, 0)
    assert not shows_at_home(repost, Viewer(BOB, frozenset([ADA]), hidden={CAROL: 0}), {1: PostFacts(CAROL)}, 0)
    assert shows_at_home(event(2, DELETE, repost_of_id=1), bob, {}, 0)


def test_a_mute_hides_until_it_ends() -> None:
    relations = Viewer(BOB, frozenset(), hidden={ADA: 500})
    assert hides(relations, ADA, 499)
    assert not hides(relations, ADA, 500)
    assert not hides(None, ADA, 0)


def test_a_deleted_public_post_is_told_to_public_streams_and_hashtags() -> None:
    gone = event(kind=DELETE)
    assert shows_in(Stream("public"), gone, None)
    assert shows_in(Stream("hashtag", "cats"), gone, None)
    assert not shows_in(Stream("public:remote"), gone, None)
    assert not shows_in(Stream("public"), event(kind=DELETE, in_reply_to_account_id=str(uuid4())), None)


def test_only_an_edit_is_told_of_a_changed_row_and_only_once() -> None:
    row = {"id": 1, "author_id": str(uuid4()), "repost_of_id": None, "visibility": "public", "edited_at": None}
    assert post_event(RowChange("posts", "u", row, (1, 1), 0), PLACE, 0) is None
    recent = Recent()
    assert recent.add(event(kind="status.update", edited_at="2026-01-01"))
    assert not recent.add(event(kind="status.update", edited_at="2026-01-01"))
    assert recent.add(event(kind="status.update", edited_at="2026-01-02"))


@pytest.mark.parametrize(
    ("table", "row", "transaction"),
    [
        ("posts", {"id": 1, "author_id": "nobody"}, 1),
        ("follows", {"follower_id": str(uuid4()), "followee_id": None}, 1),
        ("blocks", {"blocker_id": str(uuid4())}, 1),
        ("filters", {"user_id": 7}, 1),
        ("mutes", {"muter_id": str(uuid4())}, 2**32),
    ],
)
def test_a_change_that_cannot_be_used_leaves_nothing_in_its_batch(
    table: str, row: dict[str, object], transaction: int
) -> None:
    batch = Batch()
    with pytest.raises(UNUSABLE):
        batch.add_change(RowChange(table, "c", row, (1, 1), 1_000, transaction), PLACE, 0)
    assert batch == Batch()


@pytest.mark.parametrize("fields", [{}, {"account_id": "x", "notification_id": "1"}, {"notification_id": str(2**63)}])
def test_an_event_that_cannot_be_used_leaves_nothing_in_its_batch(fields: dict[str, str]) -> None:
    batch = Batch()
    with pytest.raises(UNUSABLE):
        batch.add_event(DISPATCHED, {"account_id": str(uuid4()), **fields}, uuid4(), 0)
    assert batch == Batch()


def test_recent_posts_with_a_gap_do_not_join_a_flow_that_has_not_passed_it() -> None:
    recent = Recent()
    recent.begin({PLACE: 10})
    recent.begin({PLACE: 30})
    assert not recent.joins({PLACE: 29})
    assert recent.joins({PLACE: 30})


def test_posts_after_a_follow_are_found_by_their_place_in_the_log() -> None:
    recent = Recent()
    for number in range(3):
        recent.add(event(number + 1, lsn=number + 1))
    assert [each.entry.id for each in recent.by_author(ADA, (1, 1))] == [2, 3]
    assert recent.by_author(BOB, (0, 0)) == []


def test_recent_posts_join_a_flow_that_has_come_as_far_as_they_begin() -> None:
    recent = Recent()
    recent.begin({PLACE: 10})
    recent.add(event(offset=10))
    assert recent.joins({PLACE: 10})
    assert not recent.joins({PLACE: 9})
    assert not recent.joins({})


def client(size: int = 10) -> Client:
    return Client(principal("read", user=uuid4()), size, "sse")


def happening(identifier: int) -> Happening:
    return Happening(UPDATE, identifier, b"{}")


async def test_what_waits_behind_the_past_is_sent_once_after_it() -> None:
    one = client()
    subscription = one.subscription(Stream("user"), Position())
    subscription.live = False
    for identifier in (5, 6, 7):
        subscription.offer(happening(identifier))
    assert await one.take(0) == []
    await one.put_patiently(subscription, happening(5))
    subscription.go_live([5, 6])
    items = await one.take(0)
    assert items is not None
    assert [each.id for _, each in items] == [5, 7]
    assert [subscription.is_new(each) for _, each in items] == [True, True]
    assert not subscription.is_new(happening(7))


def test_what_the_client_can_have_read_before_it_came_is_told_once_all_the_same() -> None:
    position = new_position(1_000_000)
    position.notifications.add(5, 999_999)
    subscription = client().subscription(Stream("user"), position)
    subscription.noted = {5}
    told = Happening(NOTIFICATION, 5, b"{}", 0, 999_999)
    assert [subscription.is_new(told) for _ in range(2)] == [True, False]


async def test_a_client_that_does_not_read_is_ended_and_keeps_nothing() -> None:
    one = client(10)
    subscription = one.subscription(Stream("user"), Position())
    for identifier in range(11):
        subscription.offer(happening(identifier))
    assert one.ended is Ended.SLOW
    assert one.over.is_set()
    assert await one.take(0) is None


async def test_the_past_waits_for_room_instead_of_ending_the_client() -> None:
    one = client(10)
    subscription = one.subscription(Stream("user"), Position())

    async def past() -> None:
        for identifier in range(1, 101):
            await one.put_patiently(subscription, happening(identifier))

    task = asyncio.create_task(past())
    seen: list[int] = []
    while len(seen) < 100:
        items = await one.take(1)
        assert items
        seen += [each.id for _, each in items]
    await task
    assert seen == list(range(1, 101))
    assert one.ended is None


def test_an_entry_of_a_repost_names_its_original() -> None:
    assert event(9, repost_of_id=4).entry == Entry(9, 4)
    assert not event(9, repost_of_id=4).is_tagged
    assert event(9).is_listed
    assert not event(9, in_reply_to_account_id=str(uuid4())).is_listed


def test_the_log_may_have_rows_of_a_changefeed() -> None:
    async def nothing(_batch: Batch) -> None: ...

    reader = LogReader(Settings(), (), 0, nothing, lambda: None, lambda _: None)
    batch = Batch()
    added, removed = ([str(uuid4()), str(uuid4())] for _ in range(2))
    for offset, value in enumerate(
        (
            {"after": dict(zip(("blocker_id", "blocked_id"), added, strict=True)), "before": None, "updated": "3.0"},
            {"resolved": "4.0"},
            {"after": None, "before": None, "updated": "5.0"},
            {"before": {}},
        )
    ):
        key, text = json.dumps(removed).encode(), json.dumps(value).encode()
        reader._add(batch, Message("cdc.blocks", 0, offset, key, text, (), 0))
    assert batch.related == {UUID(person) for person in (*added, *removed)}
