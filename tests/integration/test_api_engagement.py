"""What people do with statuses over the real servers: favourites, bookmarks, pins, muted threads, and their events."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from aiohttp.test_utils import make_mocked_request

from api.database import Transaction
from api.engagement_lists import DONE_WITH, FAVOURITED_BY
from api.moment_paging import read_moment_page
from api.paging import post_id
from fanline.avro import AvroDecoder
from schemas import contracts
from tests.conftest import Stack
from tests.integration.api_world import PASSWORD, Api, Person, running_api

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


async def test_a_favourite_and_a_repost_of_what_is_hidden_by_now_can_be_taken_back(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = await api.status(ann, "x")
    await act(api, bob, "favourite", posted)
    repost = await act(api, bob, "reblog", posted)
    (await api.post(f"/api/v1/accounts/{bob.id}/block", ann)).ok()
    (await api.post(f"/api/v1/statuses/{posted['id']}/unfavourite", bob)).fails(404)
    (await api.post(f"/api/v1/statuses/{posted['id']}/unreblog", bob)).fails(404)
    await api.once(
        f"/api/v1/statuses/{posted['id']}",
        ann,
        lambda status: status["favourites_count"] == status["reblogs_count"] == 0,
    )
    assert (await kinds(api, posted))[-2:] == [("favourite", bob.id, True), ("repost", bob.id, True)]
    assert len(await events(api, repost, "post.deleted")) == 1
    (await api.post(f"/api/v1/statuses/{posted['id']}/unreblog", bob)).fails(404)
    assert len(await events(api, repost, "post.deleted")) == 1


async def token_for(api: Api, who: Person, scope: str) -> str:
    client = await api.client()
    grant = {
        "grant_type": "password",
        "username": who.username,
        "password": PASSWORD,
        "client_id": client.client_id,
        "client_secret": client.client_secret,
        "scope": scope,
    }
    token: str = (await api.post("/oauth/token", data=grant)).ok()["access_token"]
    return token


async def test_each_route_asks_for_its_scope(api: Api) -> None:
    ann = await api.person("ann")
    posted = await api.status(ann, "x")
    others = await token_for(api, ann, "write:media")
    routes = {
        "write:favourites": [("POST", "statuses/{}/favourite"), ("POST", "statuses/{}/unfavourite")],
        "write:bookmarks": [("POST", "statuses/{}/bookmark"), ("POST", "statuses/{}/unbookmark")],
        "write:accounts": [("POST", "statuses/{}/pin"), ("POST", "statuses/{}/unpin")],
        "write:mutes": [("POST", "statuses/{}/mute"), ("POST", "statuses/{}/unmute")],
        "read:favourites": [("GET", "favourites")],
        "read:bookmarks": [("GET", "bookmarks")],
    }
    for scope, named in routes.items():
        granted = await token_for(api, ann, scope)
        for method, path in named:
            address = f"/api/v1/{path.format(posted['id'])}"
            (await api.request(method, address, granted)).ok()
            (await api.request(method, address, others)).fails(403)
            (await api.request(method, address)).fails(401)


async def walk(api: Api, address: str, who: Person | None = None) -> list[list[str]]:
    """The ids of every page, following `next`; then back from the last one, following `prev`, which must agree."""
    pages: list[list[str]] = []
    previous = ""
    while (answer := await api.get(address, who)).ok():
        pages.append([entity["id"] for entity in answer.json])
        address, previous = (part.split(">")[0].strip(" <") for part in answer.headers["Link"].split(","))
    back: list[list[str]] = []
    while previous and (answer := await api.get(previous, who)).ok():
        back.insert(0, [entity["id"] for entity in answer.json])
        previous = answer.headers["Link"].split(",")[1].split(">")[0].strip(" <")
    assert back == pages[:-1]
    return pages


@pytest.mark.parametrize(
    ("verb", "path", "table"), [("favourite", "favourites", "likes"), ("bookmark", "bookmarks", "bookmarks")]
)
async def test_what_one_did_is_listed_by_when_one_did_it(api: Api, verb: str, path: str, table: str) -> None:
    ann, bob = await api.people("ann", "bob")
    posted = [await api.status(ann, f"{n}") for n in range(5)]
    for status in (posted[2], posted[0], posted[4], posted[1], posted[3]):
        await act(api, bob, verb, status)
    expected = [posted[n]["id"] for n in (3, 1, 4, 0, 2)]
    assert await walk(api, f"/api/v1/{path}?limit=2", bob) == [expected[:2], expected[2:4], expected[4:]]
    await api.context.database.execute(
        f"UPDATE {table} SET created_at = '2026-01-01 10:00:00.123456+00' WHERE user_id = %(id)s", {"id": bob.id}
    )
    together = [status["id"] for status in reversed(posted)]
    assert await walk(api, f"/api/v1/{path}?limit=2", bob) == [together[:2], together[2:4], together[4:]]
    newest = (await api.get(f"/api/v1/{path}?limit=1", bob)).headers["Link"]
    cursor = newest.split("max_id=")[1].split(">")[0]
    assert (await api.get(f"/api/v1/{path}?since_id={cursor}", bob)).ok() == []
    assert (await api.get(f"/api/v1/{path}", ann)).ok() == []


async def test_lists_show_only_what_may_still_be_seen(api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    await api.follow(bob, ann)
    private, public = await api.status(ann, "x", visibility="private"), await api.status(ann, "y")
    for status in (private, public):
        await act(api, bob, "favourite", status)
        await act(api, bob, "bookmark", status)
    (await api.post(f"/api/v1/accounts/{ann.id}/unfollow", bob)).ok()
    for path in ("favourites", "bookmarks"):
        (shown,) = (await api.get(f"/api/v1/{path}", bob)).ok()
        assert (shown["id"], shown["favourited"], shown["bookmarked"]) == (public["id"], True, True)
    (await api.request("DELETE", f"/api/v1/statuses/{public['id']}", ann)).ok()
    assert (await api.get("/api/v1/favourites", bob)).ok() == []


async def test_it_is_listed_who_favourited_but_not_to_those_who_are_kept_apart(api: Api) -> None:
    ann, *fans = await api.people("ann", "fan1", "fan2", "fan3")
    posted = await api.status(ann, "x")
    for fan in fans:
        await act(api, fan, "favourite", posted)
    path = f"/api/v1/statuses/{posted['id']}/favourited_by"
    newest_first = [fan.id for fan in reversed(fans)]
    assert await walk(api, f"{path}?limit=2") == [newest_first[:2], newest_first[2:]]
    (await api.post(f"/api/v1/accounts/{fans[0].id}/block", fans[1])).ok()
    assert await walk(api, path, fans[0]) == [[fans[2].id, fans[0].id]]
    assert await walk(api, path, fans[1]) == [[fans[2].id, fans[1].id]]
    private = await api.status(ann, "x", visibility="private")
    (await api.get(f"/api/v1/statuses/{private['id']}/favourited_by", fans[0])).fails(404)


@pytest.mark.parametrize("cursor", ["x", "1", "1-x", "-1", "9" * 18 + "-1", "1-" + "9" * 30])
async def test_a_cursor_of_another_list_is_refused(api: Api, cursor: str) -> None:
    ann = await api.person("ann")
    (await api.get(f"/api/v1/favourites?max_id={cursor}", ann)).fails(400)


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (DONE_WITH.format(table="likes"), "likes_user"),
        (DONE_WITH.format(table="bookmarks"), "bookmarks_user"),
        (FAVOURITED_BY, "likes_post"),
    ],
)
async def test_a_page_reads_an_index_in_its_order(api: Api, query: str, index: str) -> None:
    page = read_moment_page(make_mocked_request("GET", "/x?limit=5&max_id=1795353890435123-5"), post_id)
    columns = ("l.created_at", "l.user_id") if index == "likes_post" else ("e.created_at", "e.post_id")
    parameters = {"id": 1, "viewer": UUID(int=0), **page.parameters()}
    if index == "likes_post":
        parameters["max_id"] = UUID(int=5)

    async def explain(transaction: Transaction) -> list[str]:
        # On tables this small the planner would read everything; what counts is what it can do.
        for setting in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
            await transaction.execute(f"SET LOCAL {setting} = off")
        rows = await transaction.rows("EXPLAIN " + query + page.sql(*columns), parameters)
        return [row["QUERY PLAN"] for row in rows]

    plan = "\n".join(await api.context.database.transaction(explain))
    assert re.search(rf"Index (Only )?Scan using {index} ", plan), plan
    assert not re.search(r"(?<!Incremental )Sort  ", plan), plan


async def test_what_one_does_is_at_home_at_once_and_stays_there(system: Stack, api: Api) -> None:
    ann, bob = await api.people("ann", "bob")
    await api.follow(ann, bob)
    top = await api.status(bob, "top", poll={"options": ["tea", "coffee"], "expires_in": 600})
    reply = await api.status(bob, "more", in_reply_to_id=top["id"])
    await api.home_from_redis(ann)

    async def both() -> list[dict[str, dict[str, Any]]]:
        now = (await api.get("/api/v1/timelines/home", ann)).ok()
        return [{status["id"]: status for status in page} for page in (now, await api.home_from_redis(ann))]

    for verb in ("favourite", "bookmark", "mute"):
        await act(api, ann, verb, top)
    (await api.post(f"/api/v1/polls/{top['poll']['id']}/votes", ann, json={"choices": [1]})).ok()
    for shown in await both():
        mine = shown[top["id"]]
        assert (mine["favourited"], mine["bookmarked"], mine["muted"], mine["favourites_count"]) == (
            True,
            True,
            True,
            1,
        )
        assert (mine["poll"]["own_votes"], mine["poll"]["votes_count"], mine["replies_count"]) == ([1], 1, 1)
        assert (shown[reply["id"]]["muted"], shown[reply["id"]]["favourited"]) == (True, False)
    for verb in ("unfavourite", "unbookmark", "unmute"):
        await act(api, ann, verb, top)
    (await api.request("PUT", f"/api/v1/statuses/{top['id']}", bob, json={"poll": None, "status": "changed"})).ok()
    now, _ = await both()
    assert (now[top["id"]]["favourited"], now[top["id"]]["favourites_count"], now[reply["id"]]["muted"]) == (
        False,
        0,
        False,
    )
    bobs = {status["id"]: status for status in await api.home_from_redis(bob)}
    assert (bobs[top["id"]]["poll"], "changed" in bobs[top["id"]]["content"]) == (None, True)
