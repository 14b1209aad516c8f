"""People who do everything that is read from somewhere else, and look at it."""

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from api.context import public_url_of
from audit.visitors import admitted
from demo.graph import scale_free
from demo.load import tokens_by_number
from demo.people import Loaded, load_graph
from demo.plan import plan
from demo.poster import Outcome, Poster
from fanline import database
from tests.conftest import Stack
from tests.integration.api_world import OUT_OF_BAND, Api, Person, running_api
from tests.integration.channel_world import PushService

T = TypeVar("T")

NAME = "contract"
GRAPH = scale_free(30, 300, seed=7)
POSTS, RATE = 120, 60.0
DOERS = 8
"""People of the graph who also do by hand what the plan does not."""
SUBSCRIBERS = 2
ALERTS = {f"data[alerts][{kind}]": "true" for kind in ("follow", "mention", "favourite", "reblog", "poll")}

THOSE = """
SELECT u.id AS person, p.id AS post FROM users u
CROSS JOIN (SELECT id FROM posts WHERE id = ANY(%(posts)s) AND repost_of_id IS NULL) p
WHERE u.id = ANY(%(people)s)
"""
LIKES = f"""
INSERT INTO likes (user_id, post_id)
SELECT person, post FROM ({THOSE}) t ORDER BY md5(person::text || post) LIMIT 500 ON CONFLICT DO NOTHING
RETURNING user_id, post_id
"""
BOOKMARKS = f"""
INSERT INTO bookmarks (user_id, post_id)
SELECT person, post FROM ({THOSE}) t ORDER BY md5(post || person::text) LIMIT 100 ON CONFLICT DO NOTHING
"""
DIGESTS = """
INSERT INTO email_preferences (user_id, digest, unsubscribe_token, next_digest_at)
SELECT id, 'daily', id::text, now() + interval '1 day' FROM unnest(%s::uuid[]) AS people(id)
"""


@dataclass
class Crowd:
    """The people of these tests."""

    loaded: Loaded
    subscribers: list[Person] = field(default_factory=list)
    """Who have signed up, and get notifications pushed."""

    @property
    def ids(self) -> list[UUID]:
        """Everybody."""
        return [*self.loaded.ids, *(UUID(person.id) for person in self.subscribers)]

    def signed_in(self, tokens: dict[UUID, str]) -> list[Person]:
        """The people of the graph."""
        pairs = zip(self.loaded.ids, self.loaded.usernames, strict=True)
        return [Person(str(identifier), username, tokens[identifier]) for identifier, username in pairs]


def gather(stack: Stack, service: PushService) -> Crowd:
    """New people, some with digests by mail, some with push, one who has to be asked before they are followed."""
    with database.connect(stack.settings, autocommit=True) as connection:
        crowd = Crowd(load_graph(connection, GRAPH, NAME))
        connection.execute(DIGESTS, [crowd.loaded.ids[:5]])
        connection.execute("UPDATE users SET locked = true WHERE id = %s", [crowd.loaded.ids[DOERS]])

    async def subscribe() -> None:
        async with running_api(stack.settings) as api:
            crowd.subscribers += [await _subscriber(api, service) for _ in range(SUBSCRIBERS)]

    asyncio.run(subscribe())
    return crowd


async def _subscriber(api: Api, service: PushService) -> Person:
    scopes = "read write follow push"
    form = {"client_name": "push", "redirect_uris": OUT_OF_BAND, "scopes": scopes}
    app = (await api.post("/api/v1/apps", json=form)).ok()
    grant = {"grant_type": "client_credentials", "scope": scopes}
    token = (await api.post("/oauth/token", data=grant | {k: app[k] for k in ("client_id", "client_secret")})).ok()
    person = await api.person(NAME, token["access_token"])
    subscription = service.browser().subscription
    form = {f"subscription[keys][{name}]": key for name, key in subscription["keys"].items()}
    form |= {"subscription[endpoint]": subscription["endpoint"], **ALERTS}
    (await api.post("/api/v1/push/subscription", person, data=form)).ok()
    return person


@contextmanager
def signed_in(stack: Stack, crowd: Crowd) -> Iterator[list[Person]]:
    """The people of the graph, with tokens for the time of the block."""
    with (
        database.connect(stack.settings, autocommit=True) as connection,
        admitted(connection, crowd.loaded.ids, "Contract", public_url_of(stack.settings)) as tokens,
    ):
        yield crowd.signed_in(tokens)


async def post(
    stack: Stack, crowd: Crowd, people: Sequence[Person], posts: int = POSTS, rate: float = RATE, seed: int = 5
) -> Outcome:
    """Posts, answers, reposts, deletes, favourites and bookmarks over REST."""
    steps = plan(GRAPH, posts, rate, seed=seed)
    tokens = tokens_by_number(steps, crowd.loaded.ids, {UUID(person.id): person.token for person in people})
    poster = Poster(public_url_of(stack.settings), steps, tokens, usernames=crowd.loaded.usernames)
    outcome = await poster.run()
    assert outcome.failures == []
    return outcome


def load(stack: Stack, crowd: Crowd) -> set[int]:
    """Everybody does everything; the ids of their posts, also of those that they have deleted."""
    with signed_in(stack, crowd) as people:
        asyncio.run(_in_an_api(stack, lambda api: read(api, [*people, *crowd.subscribers])))
        outcome = asyncio.run(post(stack, crowd, people))
        asyncio.run(_in_an_api(stack, lambda api: act(api, people, crowd.subscribers)))
        like(stack, crowd, outcome.posts)
    return set(outcome.posts)


def load_more(stack: Stack, crowd: Crowd) -> set[int]:
    """A second, smaller load; the ids of its posts, also of those that were deleted."""

    async def write(api: Api) -> Outcome:
        outcome = await post(stack, crowd, people, seed=6)
        for seed in range(5):
            await mingle(api, random.Random(seed), people)
        return outcome

    with signed_in(stack, crowd) as people:
        outcome = asyncio.run(_in_an_api(stack, write))
        like(stack, crowd, outcome.posts)
    return set(outcome.posts)


def like(stack: Stack, crowd: Crowd, posts: Sequence[int]) -> None:
    """Likes and bookmarks in bulk, some of them taken back: rows of which no event tells."""
    with database.connect(stack.settings, autocommit=True) as connection:
        everybody = {"people": crowd.ids, "posts": posts}
        connection.execute(BOOKMARKS, everybody)
        liked = connection.execute(LIKES, everybody).fetchall()
        with connection.cursor() as cursor:
            cursor.executemany("DELETE FROM likes WHERE user_id = %s AND post_id = %s", liked[::5])


def look(stack: Stack, crowd: Crowd) -> None:
    """Everybody reads what is kept only for those who read."""
    with signed_in(stack, crowd) as people:
        asyncio.run(_in_an_api(stack, lambda api: read(api, [*people, *crowd.subscribers])))


async def _in_an_api(stack: Stack, use: Callable[[Api], Awaitable[T]]) -> T:
    async with running_api(stack.settings) as api:
        return await use(api)


async def read(api: Api, people: Sequence[Person]) -> None:
    """Everybody reads what is kept only for those who read."""
    for person in people:
        for path in ("timelines/home", "notifications", f"accounts/{person.id}", f"accounts/{person.id}/statuses"):
            (await api.get(f"/api/v1/{path}", person)).ok()
        (await api.get(f"/api/v1/aggregates?metric=posts&account_id={person.id}", person)).ok()


async def act(api: Api, people: Sequence[Person], subscribers: Sequence[Person]) -> None:
    """What a plan does not do: polls, edits, pins, mutes, blocks, requests and all that is taken back."""
    doers = [*people[:DOERS], *subscribers]
    statuses = [await api.status(person, f"hello #{NAME}{number}") for number, person in enumerate(doers)]
    question = {"options": ["yes", "no"], "expires_in": 3600}
    poll = (await api.status(doers[0], "well?", poll=question))["poll"]
    for number, person in enumerate(doers):
        other, theirs, own = doers[number - 1], statuses[number - 1]["id"], statuses[number]["id"]
        await api.follow(person, other)
        for verb in ("favourite", "bookmark", "reblog", "mute"):
            (await api.post(f"/api/v1/statuses/{theirs}/{verb}", person)).ok()
        (await api.post(f"/api/v1/statuses/{own}/pin", person)).ok()
        await api.status(person, f"@{other.username} and you?", in_reply_to_id=theirs)
        await api.status(person, f"@{other.username} psst", visibility="direct")
        if number:
            (await api.post(f"/api/v1/polls/{poll['id']}/votes", person, json={"choices": [number % 2]})).ok()
    await take_back(api, doers, statuses)
    await api.follow(doers[1], people[DOERS])
    await api.follow(doers[2], people[DOERS])
    (await api.post(f"/api/v1/follow_requests/{doers[1].id}/authorize", people[DOERS])).ok()
    told = (await api.get("/api/v1/notifications", doers[3])).ok()
    if told:
        marker = {"notifications": {"last_read_id": told[-1]["id"]}}
        (await api.post("/api/v1/markers", doers[3], json=marker)).ok()
    report = {"account_id": doers[4].id, "status_ids": [statuses[4]["id"]], "comment": "hm"}
    (await api.post("/api/v1/reports", doers[5], json=report)).ok()


async def take_back(api: Api, doers: Sequence[Person], statuses: Sequence[dict[str, Any]]) -> None:
    """Undoes and changes some of it."""
    for verb, number in (("unfavourite", 1), ("unreblog", 2), ("unbookmark", 3), ("unmute", 4)):
        (await api.post(f"/api/v1/statuses/{statuses[number - 1]['id']}/{verb}", doers[number])).ok()
    (await api.post(f"/api/v1/accounts/{doers[1].id}/unfollow", doers[2])).ok()
    (await api.post(f"/api/v1/accounts/{doers[2].id}/mute", doers[3])).ok()
    (await api.post(f"/api/v1/accounts/{doers[3].id}/block", doers[4])).ok()
    edited = {"status": f"hello again #{NAME}edited"}
    (await api.request("PUT", f"/api/v1/statuses/{statuses[6]['id']}", doers[6], json=edited)).ok()
    named = {"display_name": "Somebody else", "note": "new"}
    (await api.request("PATCH", "/api/v1/accounts/update_credentials", doers[6], json=named)).ok()
    (await api.request("DELETE", f"/api/v1/statuses/{statuses[5]['id']}", doers[5])).ok()


@contextmanager
def under_load(stack: Stack, crowd: Crowd, rate: float = 20.0) -> Iterator[None]:
    """People post and do the rest for as long as the block takes; it ends when they have stopped."""
    over, written = threading.Event(), threading.Event()

    async def go_on(people: Sequence[Person]) -> None:
        async with running_api(stack.settings) as api:
            seed = 100
            while not over.is_set():
                await post(stack, crowd, people, posts=int(rate), rate=rate, seed=seed)
                await mingle(api, random.Random(seed), people)
                written.set()
                seed += 1

    with signed_in(stack, crowd) as people, ThreadPoolExecutor(1) as thread:
        load = thread.submit(lambda: asyncio.run(go_on(people)))
        load.add_done_callback(lambda _: written.set())
        try:
            assert written.wait(60), "the load does not get going"
            yield
        finally:
            over.set()
            load.result()


async def mingle(api: Api, dice: random.Random, people: Sequence[Person]) -> None:
    """Some follow others or stop to, block, mute, ask and vote."""
    one, two, three = dice.sample(people[DOERS + 1 :], 3)
    question = {"options": ["now", "later"], "expires_in": 3600, "multiple": True}
    poll = (await api.status(one, f"when? #{NAME}", poll=question))["poll"]
    for voter in (two, three):
        (await api.post(f"/api/v1/polls/{poll['id']}/votes", voter, json={"choices": [0, 1]})).ok()
    # Nobody stays blocked, as their requests would be refused.
    for verb in dice.choice([("follow", "mute"), ("unmute", "unfollow"), ("block", "unblock")]):
        (await api.post(f"/api/v1/accounts/{three.id}/{verb}", two)).ok()
