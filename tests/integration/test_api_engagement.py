"""What people do with statuses over the real servers: favourites, bookmarks, pins, muted threads, and their events."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fanline.avro import AvroDecoder
from schemas import contracts
from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api

pytestmark = pytest.mark.asyncio(loop_scope="module")

VERBS = [
    ("favourite", "unfavourite", "favourited"),
    ("bookmark", "unbookmark", "bookmarked"),
    ("pin", "unpin", "pinned"),
    ("mute", "unmute", "muted"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(stack: Stack) -> AsyncIterator[Api]:
    stack.fanline("migrate")
    async with running_api(stack.settings) as running:
        yield running


async def act(api: Api, who: Person, verb: str, status: dict[str, Any], **fields: Any) -> dict[str, Any]:
    entity: dict[str, Any] = (await api.post(f"/api/v1/statuses/{status['id']}/{verb}", who, json=fields)).ok()
    return entity


async def events(api: Api, status: dict[str, Any], topic: str = "engagement.recorded") -> list[dict[str, Any]]:
    """The events of a post, in the order in which they were written."""
    rows = await api.context.database.rows(
        "SELECT payload FROM outbox WHERE aggregatetype = %(topic)s AND aggregateid = %(id)s ORDER BY created_at",
        {"topic": topic, "id": str(status["id"])},
    )
    decoder = AvroDecoder(lambda _: contracts.load()[topic].text)
    return [decoder.decode(row["payload"]) for row in rows]


async def kinds(api: Api, status: dict[str, Any]) -> list[tuple[str, str, bool]]:
    return [(event["kind"], event["account_id"], event["undone"]) for event in await events(api, status)]


@pytest.mark.parametrize(("do", "undo", "flag"), VERBS)
async def test_what_is_done_twice_counts_once_and_can_be_taken_back(api: Api, do: str, undo: str, flag: str) -> None:
    ann = await api.person("ann")
    posted = await api.status(ann, "x")
    for _ in range(2):
        done = await act(api, ann, do, posted)
        assert done[flag] is True
    assert done["favourites_count"] == (1 if do == "favourite" else 0)
    assert (await api.get(f"/api/v1/statuses/{posted['id']}", ann)).ok()[flag] is True
    for _ in range(2):
        assert (await act(api, ann, undo, posted))[flag] is False
    assert (await api.get(f"/api/v1/statuses/{posted['id']}", ann)).ok() == posted


async def test_an_event_is_written_only_when_something_changes(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await api.status(ann, "x")
    for verb in ("favourite", "favourite", "bookmark", "unfavourite", "unfavourite", "unbookmark", "pin", "mute"):
        await api.post(f"/api/v1/statuses/{posted['id']}/{verb}", bob)
    assert await kinds(api, posted) == [
        ("favourite", bob.id, False),
        ("bookmark", bob.id, False),
        ("favourite", bob.id, True),
        ("bookmark", bob.id, True),
    ]
    assert {event["post_author_id"] for event in await events(api, posted)} == {ann.id}


async def test_favourites_at_the_same_time_are_one(api: Api) -> None:
    ann = await api.person("ann")
    posted = await api.status(ann, "x")
    answers = await asyncio.gather(
        *(api.post(f"/api/v1/statuses/{posted['id']}/favourite", ann) for _ in range(8)),
    )
    assert {answer.ok()["favourites_count"] for answer in answers} == {1}
    assert await kinds(api, posted) == [("favourite", ann.id, False)]


async def test_reposts_and_replies_are_engagements_of_the_original(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await api.status(ann, "x")
    repost = await act(api, bob, "reblog", posted)
    await act(api, bob, "reblog", repost)
    reply = await api.status(bob, "y", in_reply_to_id=repost["id"])
    await act(api, bob, "unreblog", posted)
    again = await act(api, bob, "reblog", posted)
    (await api.request("DELETE", f"/api/v1/statuses/{again['id']}", bob)).ok()
    (await api.request("DELETE", f"/api/v1/statuses/{reply['id']}", bob)).ok()
    assert await kinds(api, posted) == [
        ("repost", bob.id, False),
        ("reply", bob.id, False),
        ("repost", bob.id, True),
        ("repost", bob.id, False),
        ("repost", bob.id, True),
        ("reply", bob.id, True),
    ]


async def test_what_is_done_with_a_repost_is_done_with_its_original(api: Api) -> None:
    ann, bob, carol = await api.people("ann", "bob", "carol")
    posted = await api.status(ann, "x")
    repost = await act(api, bob, "reblog", posted)
    for do, undo, flag in VERBS:
        if do == "pin":
            continue
        seen = await act(api, carol, do, repost)
        assert (seen["id"], seen["reblog"][flag]) == (repost["id"], True)
        assert (await api.get(f"/api/v1/statuses/{posted['id']}", carol)).ok()[flag] is True
        assert (await act(api, carol, undo, repost))["reblog"][flag] is False


async def test_pins_show_on_the_profile_and_are_five_at_most(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = [await api.status(ann, f"{n}") for n in range(6)]
    for status in posted[:5]:
        await act(api, ann, "pin", status)
    await act(api, ann, "pin", posted[0])
    assert "maximum" in (await api.post(f"/api/v1/statuses/{posted[5]['id']}/pin", ann)).fails(422)
    shown = (await api.get(f"/api/v1/accounts/{ann.id}/statuses?pinned=true&limit=3", bob)).ok()
    assert [entity["id"] for entity in shown] == [status["id"] for status in posted[4:1:-1]]
    assert "pinned" in shown[0]
    assert shown[0]["pinned"] is False, "pinned says what the viewer has done"
    direct = await api.status(ann, "x", visibility="direct")
    assert "mentioned users" in (await api.post(f"/api/v1/statuses/{direct['id']}/pin", ann)).fails(422)
    assert "Someone else's" in (await api.post(f"/api/v1/statuses/{posted[0]['id']}/pin", bob)).fails(422)


async def test_six_pins_at_the_same_time_leave_five(api: Api) -> None:
    ann = await api.person("ann")
    posted = [await api.status(ann, f"{n}") for n in range(6)]
    answers = await asyncio.gather(*(api.post(f"/api/v1/statuses/{each['id']}/pin", ann) for each in posted))
    assert sorted(answer.status for answer in answers) == [200] * 5 + [422]


async def test_a_muted_thread_is_muted_in_every_post_of_it_for_one_person(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    top = await api.status(ann, "top")
    middle = await api.status(bob, "middle", in_reply_to_id=top["id"])
    leaf = await api.status(ann, "leaf", in_reply_to_id=middle["id"])
    other = await api.status(ann, "other")
    assert (await act(api, ann, "mute", leaf))["muted"] is True
    later = await api.status(bob, "later", in_reply_to_id=leaf["id"])
    query = "&".join(f"id[]={each['id']}" for each in (top, middle, leaf, later, other))
    seen = (await api.get(f"/api/v1/statuses?{query}", ann)).ok()
    assert [entity["muted"] for entity in seen] == [True, True, True, True, False]
    assert not any(entity["muted"] for entity in (await api.get(f"/api/v1/statuses?{query}", bob)).ok())
    (await api.request("DELETE", f"/api/v1/statuses/{top['id']}", ann)).ok()
    assert (await api.get(f"/api/v1/statuses/{later['id']}", ann)).ok()["muted"] is True
    assert (await act(api, ann, "unmute", middle))["muted"] is False
    assert (await api.get(f"/api/v1/statuses/{later['id']}", ann)).ok()["muted"] is False


@pytest.mark.parametrize("verb", [verb for do, undo, _ in VERBS for verb in (do, undo)])
async def test_nothing_is_done_with_what_one_cannot_see(api: Api, verb: str) -> None:
    ann, bob = await api.people("ann", "bob")
    private = await api.status(ann, "x", visibility="private")
    (await api.post(f"/api/v1/statuses/{private['id']}/{verb}", bob)).fails(404)
    (await api.post(f"/api/v1/statuses/{private['id']}/{verb}")).fails(401)
    (await api.post(f"/api/v1/statuses/1/{verb}", bob)).fails(404)
    (await api.post(f"/api/v1/statuses/nonsense/{verb}", bob)).fails(404)
    assert (await api.get(f"/api/v1/statuses/{private['id']}", ann)).ok() == private


async def test_a_favourite_of_what_is_hidden_by_now_can_be_taken_back(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await api.status(ann, "x")
    await act(api, bob, "favourite", posted)
    (await api.post(f"/api/v1/accounts/{bob.id}/block", ann)).ok()
    (await api.post(f"/api/v1/statuses/{posted['id']}/unfavourite", bob)).fails(404)
    assert (await api.get(f"/api/v1/statuses/{posted['id']}", ann)).ok()["favourites_count"] == 0


@pytest.mark.parametrize(
    ("verb", "scope"),
    [("favourite", "write:favourites"), ("bookmark", "write:bookmarks"), ("pin", "write:accounts"), ("mute", "write:mutes")],
)
async def test_each_action_asks_for_its_scope(api: Api, verb: str, scope: str) -> None:
    ann = await api.person("ann")
    posted = await api.status(ann, "x")
    client = await api.client()
    granted = {name: await token_with(api, ann, client, name) for name in (scope, "write:media")}
    (await api.post(f"/api/v1/statuses/{posted['id']}/{verb}", granted[scope])).ok()
    (await api.post(f"/api/v1/statuses/{posted['id']}/{verb}", granted["write:media"])).fails(403)
