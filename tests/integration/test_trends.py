"""Trends over the whole way: posts and favourites over REST, the flow, Redis, and what REST shows."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import product
from unittest import mock
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr

from audit.stores import Stores
from audit.trends import check_posts, check_tags, repair_posts, repair_tags
from connectors.barrier import Barrier
from fanline.database import connect
from readmodels import trend_marks, trend_ranking, trend_uses, trends
from readmodels.effects import command
from readmodels.trend_ranking import Entry, Terms, parse, posts_oracle, rank_posts, rank_tags, read, tags_oracle
from readmodels.trend_uses import DAY_MS, POST, TAG
from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api
from tests.integration.contract.valkey import wait_until


@pytest.fixture
async def api(system: Stack) -> AsyncIterator[Api]:
    async with running_api(system.settings) as made:
        yield made


def tag() -> str:
    return "t" + secrets.token_hex(5)


async def settle(system: Stack) -> None:
    def wait() -> None:
        with Barrier(system.settings, ("trends",)) as barrier:
            barrier.wait(60)

    await asyncio.to_thread(wait)


def ranked(system: Stack, minimum: int, name: str = "", post: str = "", hours: float = 0) -> Entry | None:
    """What the ranking in Redis says of a hashtag or a post now; SQL says the same."""
    terms = Terms(time.time_ns() // 1_000_000, minimum, hours)
    stores = Stores(system.settings)
    try:
        redis, sql = (rank_tags, tags_oracle) if name else (rank_posts, posts_oracle)
        # Other tests' posts may trend more.
        with mock.patch.multiple(trend_ranking, KEPT=100_000, AT_ONCE=3):
            for people in (2, trend_ranking.MOST_PEOPLE):
                with mock.patch.object(trend_ranking, "MOST_PEOPLE", people):
                    found, wanted = (
                        {entry.subject: entry for entry in stores.drive(ranking(terms)).entries}.get(name or post)
                        for ranking in (redis, sql)
                    )
                assert found == wanted
    finally:
        stores.close()
    return found


def check(system: Stack, names: list[str], posts: list[int]) -> None:
    stores = Stores(system.settings)
    try:
        for found in (check_tags(stores, names), check_posts(stores, posts)):
            assert not any(found.values()), found
    finally:
        stores.close()


async def test_people_make_a_trend_and_posts_of_one_do_not(api: Api, system: Stack) -> None:
    crowd = await api.people(*(f"c{number}" for number in range(4)))
    many, spam = tag(), tag()
    posts = [await api.status(person, f"#{many} is on") for person in crowd]
    for number in range(12):
        await api.status(crowd[0], f"#{spam} {number}")
    await api.status(crowd[1], f"#{many} only for me", visibility="private")
    await settle(system)
    assert ranked(system, 3, many) == Entry(many, 9, 4)  # four people where one was to be expected
    assert ranked(system, 2, spam) is None
    shown = (await api.get(f"/api/v1/tags/{many}")).ok()
    assert (shown["history"][0]["uses"], shown["history"][0]["accounts"]) == ("4", "4")
    shown = (await api.get(f"/api/v1/tags/{spam}")).ok()
    assert (shown["history"][0]["uses"], shown["history"][0]["accounts"]) == ("12", "1")
    # Deleted, edited away, and deleted with their account: nothing stays.
    (await api.request("DELETE", f"/api/v1/statuses/{posts[0]['id']}", crowd[0])).ok()
    (await api.request("PUT", f"/api/v1/statuses/{posts[1]['id']}", crowd[1], json={"status": "never mind"})).ok()
    with connect(system.settings, autocommit=True) as connection:
        connection.execute("DELETE FROM users WHERE id = %s", [UUID(crowd[2].id)])
    await settle(system)
    check(system, [many, spam], [int(post["id"]) for post in posts])
    assert ranked(system, 2, many) is None


async def test_a_post_trends_by_the_people_who_do_something_with_it(api: Api, system: Stack) -> None:
    ada, *crowd = await api.people("ada", *(f"c{number}" for number in range(4)))
    post, shy = await api.status(ada, "look"), await api.status(ada, "careful", sensitive="true")
    for person in crowd:
        (await api.post(f"/api/v1/statuses/{post['id']}/favourite", person)).ok()
        (await api.post(f"/api/v1/statuses/{shy['id']}/favourite", person)).ok()
    # The same people, and the author: nobody new.
    (await api.post(f"/api/v1/statuses/{post['id']}/favourite", ada)).ok()
    (await api.post(f"/api/v1/statuses/{post['id']}/reblog", crowd[0])).ok()
    await api.status(crowd[1], "me too", in_reply_to_id=post["id"])
    await settle(system)
    assert ranked(system, 4, post=post["id"]) == Entry(post["id"], 9, 4)
    assert ranked(system, 4, post=shy["id"]) is None
    for person in crowd[:2]:
        (await api.post(f"/api/v1/statuses/{post['id']}/unfavourite", person)).ok()
    (await api.post(f"/api/v1/statuses/{post['id']}/unreblog", crowd[0])).ok()
    await settle(system)
    check(system, [], [int(post["id"])])
    assert ranked(system, 3, post=post["id"]) == Entry(post["id"], 4, 3)  # one of the two has answered
    (await api.request("DELETE", f"/api/v1/statuses/{post['id']}", ada)).ok()
    await settle(system)
    check(system, [], [int(post["id"])])
    assert ranked(system, 1, post=post["id"]) is None


async def test_what_redis_has_lost_is_counted_again(api: Api, system: Stack) -> None:
    ada, *crowd = await api.people("ada", *(f"c{number}" for number in range(4)))
    name = tag()
    posts = [await api.status(ada, f"#{name} {number}") for number in range(3)]
    for person, post in product(crowd, posts):
        (await api.post(f"/api/v1/statuses/{post['id']}/favourite", person)).ok()
        (await api.post(f"/api/v1/statuses/{post['id']}/reblog", person)).ok()
    await api.status(crowd[0], "me too", in_reply_to_id=posts[0]["id"])
    await settle(system)
    ids = [int(post["id"]) for post in posts]
    now_ms = time.time_ns() // 1_000_000
    lost = [command(trends.post_key(each), b"DEL") for each in ids]
    lost += [trend_uses.forget(POST, b"%d" % each, now_ms) for each in ids]
    lost.append(trend_uses.forget(TAG, name.encode(), now_ms))
    stores = Stores(system.settings)
    try:
        # Page by page, without a mark that the flow would see.
        stores.redis(lost)
        place = trend_marks.Place(b"", ids[0] - 1, datetime.now(UTC) - timedelta(minutes=7))
        with mock.patch.object(trend_marks, "ROWS", 2):
            while not place.posts_done or place.moment < datetime.now(UTC):
                place = stores.drive(trend_marks.go_on(place, now_ms)) or place
        check(system, [name], ids)
        # By the flow, which sees that a mark is missing.
        stores.redis([*lost, command(trend_marks.mark_keys()[7], b"DEL")])
        await asyncio.to_thread(wait_until, lambda: stores.drive(trend_marks.are_counted()), "trends are counted", 60)
        check(system, [name], ids)
    finally:
        stores.close()


async def test_what_is_wrong_in_redis_is_found_and_repaired(api: Api, system: Stack) -> None:
    ada, bob = await api.people("ada", "bob")
    name = tag()
    post = int((await api.status(ada, f"#{name}"))["id"])
    (await api.post(f"/api/v1/statuses/{post}/favourite", bob)).ok()
    await api.status(bob, "me too", in_reply_to_id=post)
    await settle(system)
    now_ms = time.time_ns() // 1_000_000
    subject, quarter, tag_name, day = b"%d" % post, now_ms // POST.block_ms, name.encode(), now_ms // DAY_MS
    sets = [POST.like_key(subject), POST.people_key(subject), TAG.people_key(tag_name)]
    uses = [POST.use_key(subject, quarter), TAG.use_key(tag_name, day)]
    by = [POST.by_key(subject, quarter), TAG.by_key(tag_name, day)]
    stores = Stores(system.settings)
    try:
        for damage in (
            *([command(key, b"DEL")] for key in (*sets, *uses, *by)),
            *([command(key, b"ZADD", now_ms, uuid4().bytes)] for key in sets),
            *([command(key, b"ZADD", now_ms + 1, UUID(bob.id).bytes)] for key in sets[1:]),
            *([command(key, b"ZADD", 0, trend_uses.use(uuid4().bytes, post + 1))] for key in uses),
            *([command(key, b"SADD", uuid4().bytes)] for key in by),
        ):
            stores.redis(damage)
            found = [*check_tags(stores, [name]).values(), *check_posts(stores, [post]).values()]
            assert any(found)
            repair_tags(stores, [name])
            repair_posts(stores, [post])
            check(system, [name], [post])
    finally:
        stores.close()


async def test_silenced_people_count_for_nothing(api: Api, system: Stack) -> None:
    crowd = await api.people(*(f"c{number}" for number in range(4)))
    name = tag()
    for person in crowd:
        await api.status(person, f"#{name}")
    with connect(system.settings, autocommit=True) as connection:
        connection.execute("UPDATE users SET silenced_at = now() WHERE id = %s", [UUID(crowd[0].id)])
        connection.execute("UPDATE users SET suspended_at = now() WHERE id = %s", [UUID(crowd[1].id)])
    await settle(system)
    assert ranked(system, 2, name) == Entry(name, 1, 2)


async def test_who_has_just_signed_up_counts_for_nothing_where_that_is_wanted(api: Api, system: Stack) -> None:
    ada, *crowd = await api.people("ada", *(f"c{number}" for number in range(5)))
    name = tag()
    post = await api.status(ada, "look")
    for person in crowd:
        await api.status(person, f"#{name}")
        (await api.post(f"/api/v1/statuses/{post['id']}/favourite", person)).ok()
    with connect(system.settings, autocommit=True) as connection:
        connection.execute(
            "UPDATE users SET created_at = now() - interval '25 hours' WHERE id = ANY(%s)",
            [[UUID(person.id) for person in crowd[:3]]],
        )
    await settle(system)
    for hours, people in ((0, 5), (24, 3)):
        score = float((people - 1) ** 2)
        assert ranked(system, 2, name, hours=hours) == Entry(name, score, people)
        assert ranked(system, 2, post=post["id"], hours=hours) == Entry(post["id"], score, people)
    for subject in ({"name": name}, {"post": post["id"]}):
        assert ranked(system, 2, **subject, hours=26) is None
        assert ranked(system, 4, **subject, hours=24) is None


async def test_of_one_author_three_posts_trend_the_strongest_ones(api: Api, system: Stack) -> None:
    ada, bob, *crowd = await api.people("ada", "bob", *(f"c{number}" for number in range(7)))
    posts = [await api.status(ada, f"look {number}") for number in range(5)]
    other = await api.status(bob, "look here")
    for number, post in enumerate([*posts, other]):
        for person in crowd[: 2 + number]:
            (await api.post(f"/api/v1/statuses/{post['id']}/favourite", person)).ok()
    await settle(system)
    found = [ranked(system, 2, post=post["id"]) for post in [*posts, other]]
    assert [entry and entry.accounts for entry in found] == [None, None, 4, 5, 6, 7]


async def moderator(api: Api, system: Stack) -> Person:
    person = await api.person("mod")
    with connect(system.settings, autocommit=True) as connection:
        connection.execute("UPDATE identities SET role = 'moderator' WHERE user_id = %s", [UUID(person.id)])
    return person


def admire(system: Stack, post: int) -> None:
    """Favourites of many people, so that no other test's post trends more."""
    people = [uuid4() for _ in range(300)]
    with connect(system.settings, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO users (id, username) SELECT id, 'f_' || left(replace(id::text, '-', ''), 28) "
            "FROM unnest(%s::uuid[]) AS id",
            [people],
        )
        connection.execute(
            "INSERT INTO likes (user_id, post_id) SELECT id, %s FROM unnest(%s::uuid[]) AS id", [post, people]
        )


async def test_moderators_decide_what_may_trend(system: Stack) -> None:
    minimum = {"trends_minimum_accounts": 2, "redis_url": SecretStr("redis://127.0.0.1:9")}  # what SQL says, now
    async with (
        running_api(system.settings, trends_show_unreviewed=False, **minimum) as strict,
        running_api(system.settings, **minimum) as open_minded,
    ):
        people = await strict.people("a", "b", "c")
        name = tag()
        posts = [await strict.status(person, f"#{name}") for person in people]
        admire(system, int(posts[0]["id"]))
        mod = await moderator(strict, system)

        async def shown(api: Api) -> tuple[bool, bool]:
            tags = await api.request("GET", "/api/v1/trends/tags", params={"limit": 20})
            statuses = await api.request("GET", "/api/v1/trends/statuses", params={"limit": 40})
            return name in [each["name"] for each in tags.ok()], posts[0]["id"] in [
                each["id"] for each in statuses.ok()
            ]

        assert await shown(strict) == (False, False)
        assert await shown(open_minded) == (True, True)
        (await strict.get("/api/v1/admin/trends/tags")).fails(401)
        (await strict.get("/api/v1/admin/trends/tags", people[0])).fails(403)
        (await strict.post(f"/api/v1/admin/trends/tags/{name}/approve", people[0])).fails(403)
        waiting = {each["name"]: each for each in (await strict.get("/api/v1/admin/trends/tags", mod)).ok()}
        assert (waiting[name]["requires_review"], waiting[name]["trendable"]) == (True, False)
        approved = (await strict.post(f"/api/v1/admin/trends/tags/{name}/approve", mod)).ok()
        assert (approved["requires_review"], approved["trendable"]) == (False, True)
        (await strict.post(f"/api/v1/admin/trends/statuses/{posts[0]['id']}/approve", mod)).ok()
        assert await shown(strict) == (True, True)
        (await strict.post(f"/api/v1/admin/trends/tags/{name}/reject", mod)).ok()
        (await strict.post(f"/api/v1/admin/trends/statuses/{posts[0]['id']}/reject", mod)).ok()
        assert await shown(strict) == (False, False)
        assert await shown(open_minded) == (False, False)
        (await strict.post("/api/v1/admin/trends/statuses/1/approve", mod)).fails(404)
        assert (await strict.get("/api/v1/trends/links")).ok() == []


async def test_the_flow_ranks_by_itself(api: Api, system: Stack) -> None:
    crowd = await api.people(*(f"c{number}" for number in range(system.settings.trends_minimum_accounts)))
    name = tag()
    for person in crowd:
        await api.status(person, f"#{name}")
    stores = Stores(system.settings)
    try:
        deadline = time.monotonic() + 30
        while True:
            value = stores.redis([read(trends.TAGS)])[0]
            if value is not None and name in [entry.subject for entry in parse(value).entries]:
                break
            assert time.monotonic() < deadline, f"#{name} does not trend"
            await asyncio.sleep(0.2)
    finally:
        stores.close()
    assert name in [each["name"] for each in (await api.get("/api/v1/trends", params={"limit": 20})).ok()]
