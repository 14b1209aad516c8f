"""The streaming API on the running system: what clients are told, and what they get when they come back."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api
from tests.integration.stream_world import Listener, events, websocket


@pytest.fixture
async def api(system: Stack) -> AsyncIterator[Api]:
    async with running_api(system.settings, stream_heartbeat_seconds=0.5) as running:
        yield running


@pytest.fixture
async def pair(api: Api) -> tuple[Person, Person]:
    """Ada, and Bob who follows her."""
    ada, bob = await api.people("ada", "bob")
    await api.follow(bob, ada)
    return ada, bob


async def test_a_follower_hears_a_post_its_edit_and_its_end(api: Api, pair: tuple[Person, Person]) -> None:
    ada, bob = pair
    async with events(api, "user", bob) as stream:
        status = await api.status(ada, "hello #stream")
        await stream.until(lambda each: bool(each.of("update")))
        told = stream.of("update")[0].json
        shown = (await api.get(f"/api/v1/statuses/{status['id']}", bob)).ok()
        assert told == shown
        await api.request("PUT", f"/api/v1/statuses/{status['id']}", ada, json={"status": "changed"})
        await stream.until(lambda each: bool(each.of("status.update")))
        assert "changed" in stream.of("status.update")[0].json["content"]
        await api.request("DELETE", f"/api/v1/statuses/{status['id']}", ada)
        await stream.until(lambda each: bool(each.of("delete")))
        assert stream.of("delete")[0].data == status["id"]


async def test_a_stream_shows_what_home_shows_and_nothing_else(api: Api, pair: tuple[Person, Person]) -> None:
    ada, bob = pair
    carol, dan = await api.people("carol", "dan")
    await api.follow(bob, dan)
    await api.post(f"/api/v1/accounts/{dan.id}/mute", bob)
    async with events(api, "user", bob) as stream:
        stranger = await api.status(carol, "not followed")
        await api.status(dan, "muted")
        await api.status(ada, "a reply to a stranger", in_reply_to_id=stranger["id"])
        await api.status(ada, "direct", visibility="direct")
        private = await api.status(ada, "for followers", visibility="private")
        repost = (await api.post(f"/api/v1/statuses/{stranger['id']}/reblog", ada)).ok()
        mine = await api.status(bob, "my own")
        await stream.until(lambda each: mine["id"] in each.ids())
        assert stream.ids() == [private["id"], repost["id"], mine["id"]]
        assert stream.of("update")[1].json["reblog"]["id"] == stranger["id"]


async def test_a_follow_a_block_and_an_unfollow_change_what_is_told(api: Api) -> None:
    ada, bob = await api.people("ada", "bob")
    async with events(api, "user", bob) as stream:
        await api.status(ada, "before the follow")
        await api.follow(bob, ada)
        followed = await api.status(ada, "after the follow")
        await stream.until(lambda each: each.ids() == [followed["id"]])
        (await api.post(f"/api/v1/accounts/{ada.id}/unfollow", bob)).ok()
        await api.status(ada, "after the unfollow")
        last = await api.status(bob, "mine")
        await stream.until(lambda each: last["id"] in each.ids())
        assert stream.ids() == [followed["id"], last["id"]]


async def test_who_comes_back_gets_exactly_what_was_missed(api: Api, pair: tuple[Person, Person]) -> None:
    ada, bob = pair
    count, heard = 60, []
    posted: list[str] = []

    async def post() -> None:
        for number in range(count):
            posted.append((await api.status(ada, f"number {number}"))["id"])

    async with events(api, "user", bob) as stream:
        load = asyncio.create_task(post())
        await stream.until(lambda each: bool(each.ids()))
    heard += stream.ids()
    last = stream.told[-1].id
    deadline = asyncio.get_running_loop().time() + 60
    while len(heard) < count and asyncio.get_running_loop().time() < deadline:
        enough = len(heard) + 7
        async with events(api, "user", bob, last) as stream:

            def some(each: Listener, enough: int = enough, before: int = len(heard)) -> bool:
                return before + len(each.ids()) >= min(enough, count)

            await stream.until(some)
        heard += stream.ids()
        last = stream.told[-1].id
    await load
    assert sorted(heard) == sorted(posted)
    assert len(set(heard)) == len(heard)


async def test_what_happened_while_the_process_was_down_is_told_by_the_next_one(
    system: Stack, pair: tuple[Person, Person], api: Api
) -> None:
    ada, bob = pair
    async with events(api, "user", bob) as stream:
        first = await api.status(ada, "first")
        await stream.until(lambda each: bool(each.ids()))
    missed = [(await api.status(ada, f"missed {number}"))["id"] for number in range(45)]
    await api.request("DELETE", f"/api/v1/statuses/{first['id']}", ada)
    async with running_api(system.settings) as other, events(other, "user", bob, stream.told[-1].id) as again:
        live = await api.status(ada, "live")
        await again.until(lambda each: live["id"] in each.ids() and bool(each.of("delete")))
        assert again.ids() == [*missed, live["id"]]
        assert [each.data for each in again.of("delete")] == [first["id"]]


async def test_a_plain_status_id_is_a_place_to_come_back_to(api: Api, pair: tuple[Person, Person]) -> None:
    ada, bob = pair
    first, second, third = [(await api.status(ada, text))["id"] for text in ("one", "two", "three")]
    async with events(api, "user", bob, first) as stream:
        await stream.until(lambda each: len(each.ids()) == 2)
        assert stream.ids() == [second, third]


async def test_public_and_hashtag_streams_follow_their_timelines(api: Api) -> None:
    ada, bob = await api.people("ada", "bob")
    tag = f"tag{ada.username[-8:]}"
    async with websocket(api, headers={"Authorization": f"Bearer {bob.token}"}) as socket:
        await socket.send(type="subscribe", stream="public")
        await socket.send(type="subscribe", stream="hashtag", tag=tag.upper())
        await socket.send(type="subscribe", stream="list", tag="1")
        await socket.until(lambda frames: any("error" in frame for frame in frames))
        assert [frame["status"] for frame in socket.frames if "error" in frame] == [400]
        plain = await api.status(ada, "nothing")
        reply = await api.status(ada, f"a reply with #{tag}", in_reply_to_id=plain["id"])
        await api.status(ada, f"hidden #{tag}", visibility="unlisted")
        tagged = await api.status(ada, f"#{tag}")
        mine = {plain["id"], reply["id"], tagged["id"]}

        def complete(_: object) -> bool:
            shown = [each["id"] for each in socket.of("public") if each["id"] in mine]
            return shown == [plain["id"], tagged["id"]] and len(socket.of("hashtag")) == 2

        await socket.until(complete)
        assert [each["id"] for each in socket.of("hashtag")] == [reply["id"], tagged["id"]]
        assert next(frame["stream"] for frame in socket.frames if frame.get("stream", [""])[0] == "hashtag") == [
            "hashtag",
            tag,
        ]


async def test_a_token_is_taken_from_the_query_and_from_the_protocol(api: Api, pair: tuple[Person, Person]) -> None:
    ada, bob = pair
    async with websocket(api, protocols=[bob.token], params={"stream": "user"}) as socket:
        assert socket.socket.protocol == bob.token
        status = await api.status(ada, "hello")
        await socket.until(lambda frames: bool(frames))
        assert socket.of("user")[0]["id"] == status["id"]
    async with websocket(api, params={"stream": "user", "access_token": bob.token}) as socket:
        await api.status(ada, "again")
        await socket.until(lambda frames: bool(frames))
    for path in ("/api/v1/streaming/user", "/api/v1/streaming/public", "/api/v1/streaming?stream=user"):
        (await api.get(path)).fails(401)
    (await api.get("/api/v1/streaming/list?list=1", bob)).fails(400)
    (await api.get("/api/v1/streaming/hashtag", bob)).fails(400)
    (await api.get("/api/v1/streaming/user", bob, headers={"Last-Event-ID": "nonsense!"})).fails(400)
    assert (await api.get("/api/v1/streaming/health")).body == b"OK"
    instance = (await api.get("/api/v2/instance")).ok()
    assert instance["configuration"]["urls"]["streaming"].startswith("ws://")
