import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from demo.plan import Kind, Step
from demo.poster import Acknowledged, Poster
from fanline.errors import DependencyUnavailable


class Statuses:
    """A server with the write routes of the API, which can be told to fail."""

    def __init__(self) -> None:
        self.posts: dict[int, dict[str, str]] = {}
        self.keys: dict[str, int] = {}
        self.calls: Counter[str] = Counter()
        self.unavailable = 0
        self.lose_answers = 0
        self.ten_calls = asyncio.Event()
        self.hold = asyncio.Event()
        self.hold.set()
        app = web.Application()
        app.router.add_get("/health/live", self.live)
        app.router.add_post("/api/v1/statuses", self.create)
        app.router.add_post("/api/v1/statuses/{id}/reblog", self.repost)
        app.router.add_delete("/api/v1/statuses/{id}", self.delete)
        self.server = TestServer(app)

    async def live(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def create(self, request: web.Request) -> web.Response:
        self.calls["create"] += 1
        if self.calls["create"] == 10:
            self.ten_calls.set()
        await self.hold.wait()
        if self.unavailable > 0:
            self.unavailable -= 1
            raise web.HTTPServiceUnavailable
        if request.headers["Authorization"] == "Bearer bad":
            raise web.HTTPUnprocessableEntity(text='{"error": "no"}')
        post_id = self.keys.setdefault(request.headers["Idempotency-Key"], len(self.keys) + 1)
        self.posts[post_id] = await request.json()
        return self._answer(request, {"id": str(post_id)})

    async def repost(self, request: web.Request) -> web.Response:
        self.calls["repost"] += 1
        if int(request.match_info["id"]) not in self.posts:
            raise web.HTTPNotFound
        return self._answer(request, {"id": str(1_000 + int(request.match_info["id"]))})

    async def delete(self, request: web.Request) -> web.Response:
        self.calls["delete"] += 1
        if self.posts.pop(int(request.match_info["id"]), None) is None:
            raise web.HTTPNotFound
        return self._answer(request, {})

    def _answer(self, request: web.Request, body: dict[str, str]) -> web.Response:
        if self.lose_answers > 0:
            self.lose_answers -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(body)


@pytest.fixture
async def statuses() -> AsyncIterator[Statuses]:
    statuses = Statuses()
    await statuses.server.start_server()
    yield statuses
    await statuses.server.close()


def poster(statuses: Statuses, steps: list[Step], token: str = "good") -> Poster:
    return Poster(str(statuses.server.make_url("/")), steps, {0: token, 1: token})


async def test_each_kind_of_write_takes_its_route(statuses: Statuses) -> None:
    steps = [
        Step(0.0, Kind.POST, 0, text="Hello."),
        Step(0.05, Kind.REPLY, 1, target=0, text="Hello back."),
        Step(0.1, Kind.REPOST, 1, target=0),
        Step(0.2, Kind.DELETE, 0, target=0),
    ]
    outcome = await poster(statuses, steps).run()
    assert outcome.failures == []
    assert outcome.posts == [1, 2, 1_001]
    assert outcome.deleted == [1]
    assert statuses.posts == {2: {"status": "Hello back.", "in_reply_to_id": "1"}}


async def test_an_unavailable_api_is_tried_again(statuses: Statuses) -> None:
    statuses.unavailable = 2
    outcome = await poster(statuses, [Step(0.0, Kind.POST, 0, text="a")]).run()
    assert outcome.posts == [1]
    assert outcome.retries == 2


async def test_a_write_whose_answer_is_lost_happens_once(statuses: Statuses) -> None:
    statuses.lose_answers = 1
    outcome = await poster(statuses, [Step(0.0, Kind.POST, 0, text="a")]).run()
    assert outcome.posts == [1]
    assert statuses.calls["create"] == 2


async def test_a_delete_whose_answer_is_lost_is_done(statuses: Statuses) -> None:
    steps = [Step(0.0, Kind.POST, 0, text="a"), Step(0.3, Kind.DELETE, 0, target=0)]

    def lose_the_next_answer(_acknowledged: Acknowledged) -> None:
        statuses.lose_answers = 1

    url = str(statuses.server.make_url("/"))
    outcome = await Poster(url, steps, {0: "good"}, on_acknowledged=lose_the_next_answer).run()
    assert outcome.deleted == [1]
    assert statuses.calls["delete"] == 2
    assert outcome.failures == []


async def test_a_refusal_is_a_failure_with_its_reason_and_what_builds_on_it_is_left_out(statuses: Statuses) -> None:
    steps = [Step(0.0, Kind.POST, 0, text="a"), Step(0.1, Kind.REPOST, 1, target=0)]
    outcome = await poster(statuses, steps, token="bad").run()
    assert outcome.failures == ['post at 0.00 s: 422 {"error": "no"}']
    assert statuses.calls["repost"] == 0


async def test_a_slow_answer_does_not_hold_up_the_next_write(statuses: Statuses) -> None:
    statuses.hold.clear()
    running = asyncio.create_task(
        poster(statuses, [Step(number / 100, Kind.POST, 0, text="a") for number in range(10)]).run()
    )
    await statuses.ten_calls.wait()
    statuses.hold.set()
    assert len((await running).posts) == 10


async def test_an_api_that_is_not_there_is_named() -> None:
    address = f"http://127.0.0.1:{unused_port()}"
    with pytest.raises(DependencyUnavailable, match=address):
        await Poster(address, [], {}).run()
