"""The streaming API on the running system: what clients are told, and what they get when they come back."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import pytest
from confluent_kafka import Producer

from api.streaming.batch import DISPATCHED, Batch
from connectors.kafka_clients import producer_config
from fanline.ids import created_ms, first_id_at
from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api
from tests.integration.channel_world import Notifier
from tests.integration.stream_world import Listener, events, websocket


@pytest.fixture
async def api(system: Stack) -> AsyncIterator[Api]:
    async with running_api(system.settings) as running:
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
        # Of several partitions, so in any order.
        told = {private["id"], repost["id"], mine["id"]}
        await stream.until(lambda each: told <= set(each.ids()))
        assert sorted(stream.ids()) == sorted(told)
        [shown] = [each.json for each in stream.of("update") if each.json["id"] == repost["id"]]
        assert shown["reblog"]["id"] == stranger["id"]


async def test_a_filter_marks_what_it_matches_and_its_change_is_told(api: Api, pair: tuple[Person, Person]) -> None:
    ada, bob = pair
    async with events(api, "user", bob) as stream:
        form = {"title": "no", "context": ["home"], "keywords_attributes": [{"keyword": "spoiler"}]}
        (await api.post("/api/v2/filters", bob, json=form)).ok()
        await stream.until(lambda each: bool(each.of("filters_changed")))
        await api.status(ada, "a spoiler")
        await stream.until(lambda each: bool(each.of("update")))
        [matched] = stream.of("update")[0].json["filtered"]
        assert matched["keyword_matches"] == ["spoiler"]


async def test_a_follow_a_block_and_an_unfollow_change_what_is_told(api: Api) -> None:
    ada, bob = await api.people("ada", "bob")
    async with events(api, "user", bob) as stream:
        await api.status(ada, "before the follow")
        for _ in range(5):
            await api.follow(bob, ada)
            followed = await api.status(ada, "after the follow")
            await stream.until(lambda each, wanted=followed["id"]: wanted in each.ids())  # type: ignore[misc]
            (await api.post(f"/api/v1/accounts/{ada.id}/unfollow", bob)).ok()
            hidden = await api.status(ada, "after the unfollow")
            last = await api.status(bob, "mine")
            await stream.until(lambda each, wanted=last["id"]: wanted in each.ids())  # type: ignore[misc]
            # Those of before belong to home again as soon as she is followed again.
            assert hidden["id"] not in stream.ids()
            await api.request("DELETE", f"/api/v1/statuses/{hidden['id']}", ada)
        await api.follow(bob, ada)
        (await api.post(f"/api/v1/accounts/{bob.id}/block", ada)).ok()
        blocked = await api.status(ada, "after the block")
        last = await api.status(bob, "mine")
        await stream.until(lambda each: last["id"] in each.ids())
        assert blocked["id"] not in stream.ids()


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


async def test_notifications_are_told_at_once_and_after_an_absence(
    api: Api, pair: tuple[Person, Person], notifier: Notifier
) -> None:
    ada, bob = pair
    async with events(api, "user", ada) as home, events(api, "user/notification", ada) as only:
        first = notifier.notify(ada.id, bob.id)
        for stream in (home, only):
            await stream.until(lambda each: bool(each.of("notification")))
            told = stream.of("notification")[0].json
            assert (told["id"], told["type"], told["account"]["id"]) == (str(first), "follow", bob.id)
        await api.status(ada, "mine")
        await home.until(lambda each: bool(each.of("update")))
    assert only.of("update") == []
    missed = [str(notifier.notify(ada.id, bob.id)) for _ in range(3)]
    async with events(api, "user/notification", ada, only.told[-1].id) as again:
        live = str(notifier.notify(ada.id, bob.id))
        await again.until(lambda each: live in [told.json["id"] for told in each.told])
        assert [told.json["id"] for told in again.told] == [*missed, live]


async def test_what_is_stored_late_while_a_client_is_away_is_told_when_it_comes_back_and_the_rest_not_again(
    api: Api, notifier: Notifier
) -> None:
    ada, bob = await api.people("ada", "bob")
    read = notifier.notify(ada.id, bob.id)
    async with events(api, "user", ada) as stream:
        told = [str(notifier.notify(ada.id, bob.id)) for _ in range(30)]
        mine = await api.status(ada, "mine")
        await stream.until(lambda each: mine["id"] in each.ids() and told[-1] in notified(each))
        assert set(told) <= set(notified(stream)) <= {str(read), *told}
    # Of minutes ago, and the older the later they are stored.
    ago = created_ms(read) - 300_000
    late = [str(notifier.notify(ada.id, bob.id, identifier=first_id_at(ago) - number)) for number in range(3)]
    async with events(api, "user", ada, stream.told[-1].id) as again:
        live = str(notifier.notify(ada.id, bob.id, identifier=first_id_at(ago) + 9))
        await again.until(lambda each: live in notified(each))
        assert notified(again) == [*late, live]
    async with events(api, "user", ada, again.told[-1].id) as last:
        live = str(notifier.notify(ada.id, bob.id))
        await last.until(lambda each: live in notified(each))
        assert notified(last) == [live]


def notified(stream: Listener) -> list[str]:
    """The ids of the notifications that were told, in order."""
    return [each.json["id"] for each in stream.of("notification")]


async def test_a_record_that_cannot_be_used_is_passed_over_and_the_next_one_is_told(
    system: Stack, api: Api, notifier: Notifier
) -> None:
    ada, bob = await api.people("ada", "bob")
    identifier = notifier.notify(ada.id, bob.id)
    async with events(api, "user", ada, str(identifier)) as stream:
        producer = Producer(producer_config(system.settings, "fanline-test"))
        nobody = notifier.event(identifier, "nobody", bob.id)
        producer.produce(DISPATCHED, nobody, ada.id, headers=[("id", b"6fa459ea-ee8a-4ca4-894e-db77e160355e")])
        second = notifier.store(ada.id, bob.id)
        producer.produce(DISPATCHED, notifier.event(second, ada.id, bob.id), ada.id, headers=[("id", b"nonsense")])
        assert await asyncio.to_thread(producer.flush, 10) == 0
        third = notifier.notify(ada.id, bob.id)
        await stream.until(lambda each: str(third) in notified(each))
        assert notified(stream) == [str(second), str(third)]


async def test_a_reading_that_breaks_off_ends_the_streams_begins_anew_and_loses_nothing(
    api: Api, pair: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = pair
    hub, broken = api.streams.hub, asyncio.Event()
    take = hub.take

    async def unforeseen(batch: Batch) -> None:
        if broken.is_set():
            raise RuntimeError("nobody has thought of this")
        await take(batch)

    monkeypatch.setattr(hub, "take", unforeseen)
    async with events(api, "user", bob) as stream:
        first = await api.status(ada, "first")
        await stream.until(lambda each: each.ids() == [first["id"]])
        broken.set()
        missed = await api.status(ada, "missed")
        await stream.until(lambda each: each.ended)
        assert "lost its place" in stream.comments[-1]
        broken.clear()
    async with events(api, "user", bob, stream.told[-1].id) as again:
        live = await api.status(ada, "live")
        await again.until(lambda each: live["id"] in each.ids())
        assert again.ids() == [missed["id"], live["id"]]


async def test_a_revoked_token_ends_its_streams(api: Api, pair: tuple[Person, Person]) -> None:
    _, bob = pair
    client = await api.client()
    async with (
        events(api, "user", bob) as stream,
        websocket(api, params={"stream": "user", "access_token": bob.token}) as other,
    ):
        form = {"client_id": client.client_id, "client_secret": client.client_secret, "token": bob.token}
        assert (await api.post("/oauth/revoke", data=form)).status == 200
        await stream.until(lambda each: each.ended)
        assert "access token" in stream.comments[-1]
        message = await other.socket.receive(10)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert message.data == 1008
    (await api.get("/api/v1/streaming/user", bob)).fails(401)


async def test_a_process_that_ends_says_so_and_takes_no_more_streams(api: Api, pair: tuple[Person, Person]) -> None:
    _, bob = pair
    async with (
        events(api, "user", bob) as stream,
        websocket(api, params={"stream": "user", "access_token": bob.token}) as other,
    ):
        assert await api.drain.finish(10), "streams held up the end of the process"
        await stream.until(lambda each: each.ended)
        assert "restarts" in stream.comments[-1]
        assert (await other.socket.receive(10)).data == 1012
        (await api.get("/api/v1/streaming/user", bob)).fails(503)


async def test_silence_is_broken_by_a_heartbeat(system: Stack, pair: tuple[Person, Person]) -> None:
    async with (
        running_api(system.settings, stream_heartbeat_seconds=0.2) as api,
        events(api, "user", pair[1]) as stream,
    ):
        await stream.until(lambda each: each.comments[:3] == [")", "thump", "thump"])


async def test_a_person_has_so_many_streams_and_no_more(system: Stack, pair: tuple[Person, Person]) -> None:
    ada, bob = pair
    async with running_api(system.settings, stream_connections_per_person=1, stream_connections=2) as few:
        async with events(few, "user", bob):
            (await few.get("/api/v1/streaming/user", bob)).fails(429)
            async with events(few, "user", ada):
                (await few.get("/api/v1/streaming/user", ada)).fails(503)
        async with events(few, "user", bob):
            pass


async def test_a_client_that_does_not_read_is_ended_and_finds_the_rest_later(
    system: Stack, pair: tuple[Person, Person]
) -> None:
    ada, bob = pair
    async with running_api(system.settings, send_buffer=4_096, stream_queue=10) as api:
        address = urlsplit(api.url("/"))
        with socket.socket() as lazy:
            lazy.settimeout(30)
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            lazy.connect((address.hostname, address.port))
            lazy.sendall(
                b"GET /api/v1/streaming/user HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
                + bob.token.encode()
                + b"\r\n\r\n"
            )
            received = await asyncio.to_thread(lazy.recv, 1)
            posted = []
            while api.streams.hub.clients:
                assert len(posted) < 100, "the client is still being written to"
                posted.append((await api.status(ada, f"{len(posted)} " + "&" * 4_900))["id"])
            received += await asyncio.to_thread(read_all, lazy)
        heard, last = heard_of(received)
        assert 0 < len(heard) < len(posted)
        async with events(api, "user", bob, last) as stream:
            await stream.until(lambda each: len(each.ids()) >= len(posted) - len(heard))
            assert heard + stream.ids() == posted


def read_all(lazy: socket.socket) -> bytes:
    """What is left in a connection that the other side has ended."""
    received = b""
    try:
        while chunk := lazy.recv(65_536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def heard_of(received: bytes) -> tuple[list[str], str]:
    """The statuses of whole events in what came over a socket, and the last event id."""
    heard, last = [], ""
    text = b"".join(line for line in received.splitlines(keepends=True) if not line.rstrip().isalnum())
    for block in text.decode(errors="ignore").split("event: update")[1:]:
        fields = dict(line.split(": ", 1) for line in block.replace("\r\n", "").split("\n") if ": " in line)
        try:
            heard.append(json.loads(fields["data"])["id"])
        except (KeyError, ValueError):
            break
        last = fields["id"]
    return heard, last
