"""Time series on the whole system: they equal what the database counts, whatever happens to the flow or to Redis."""

import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import pytest_asyncio
from pydantic import SecretStr

from audit.aggregates import check_aggregates
from audit.stores import Stores
from connectors.barrier import Barrier
from connectors.reset import reset_offsets
from readmodels import active_users
from readmodels.aggregates import DAILY, DAY, HOUR, INSTANCE, MINUTE, RESOLUTIONS, Scope, Series, floor_to
from readmodels.effects import Query, command
from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(system: Stack) -> AsyncIterator[Api]:
    async with running_api(system.settings) as running:
        yield running


@pytest.fixture(scope="module")
def stores(system: Stack) -> Iterator[Stores]:
    stores = Stores(system.settings)
    yield stores
    stores.close()


def passed(system: Stack) -> None:
    with Barrier(system.settings) as barrier:
        barrier.wait(60)


async def series(api: Api, who: Person, metric: str, account: Person | None, resolution: str = "hour") -> list[int]:
    query = f"metric={metric}&resolution={resolution}" + (f"&account_id={account.id}" if account else "")
    answer = (await api.get(f"/api/v1/aggregates?{query}", who)).ok()
    return [bucket["value"] for bucket in answer["buckets"]]


async def total(api: Api, who: Person, metric: str) -> int:
    return sum(await series(api, who, metric, who))


async def moderator(api: Api, stores: Stores) -> Person:
    person = await api.person("mod")
    stores.connection.execute("UPDATE identities SET role = 'moderator' WHERE user_id = %s", [UUID(person.id)])
    return person


def differences(stores: Stores, *scopes: Scope) -> dict[Series, object]:
    now = int(time.time())
    subjects = [Series(scope, each, floor_to(now, each.period)) for scope in scopes for each in RESOLUTIONS.values()]
    checked = check_aggregates(stores, subjects, quiet_seconds=0)
    return {series: found for series, found in checked.items() if found is None or found}


async def until_equal(stores: Stores, system: Stack, *scopes: Scope) -> None:
    """Every bucket is compared, also those that somebody else on the same system may just be writing to."""
    deadline = time.monotonic() + 30
    while found := differences(stores, *scopes):
        assert time.monotonic() < deadline, found
        passed(system)


async def test_what_an_account_writes_and_gets_is_in_its_series_and_leaves_them_when_taken_back(
    api: Api, system: Stack
) -> None:
    ada, bob = await api.people("ada", "bob")
    assert await total(api, ada, "posts") == 0  # from now on the series is kept
    first, second = [await api.status(ada, text) for text in ("one", "two")]
    await api.status(ada, "@nobody between us", visibility="direct")
    await api.follow(bob, ada)
    for status in (first, second):
        (await api.post(f"/api/v1/statuses/{status['id']}/favourite", bob)).ok()
    (await api.post(f"/api/v1/statuses/{first['id']}/reblog", bob)).ok()
    await api.status(bob, "an answer", in_reply_to_id=second["id"])
    passed(system)
    expected = {"posts": 2, "reposts": 0, "likes_received": 2, "reposts_received": 1, "replies_received": 1}
    expected["followers_gained"] = 1
    assert {metric: await total(api, ada, metric) for metric in expected} == expected
    assert await total(api, bob, "reposts") == 1

    (await api.post(f"/api/v1/statuses/{second['id']}/unfavourite", bob)).ok()
    (await api.post(f"/api/v1/accounts/{ada.id}/unfollow", bob)).ok()
    (await api.request("DELETE", f"/api/v1/statuses/{first['id']}", ada)).ok()
    passed(system)
    expected |= {"posts": 1, "likes_received": 0, "reposts_received": 0, "followers_gained": 0}
    assert {metric: await total(api, ada, metric) for metric in expected} == expected


async def test_the_series_of_the_instance_equal_the_database_after_a_kill_and_a_replay(
    api: Api, system: Stack, stores: Stores
) -> None:
    people = await api.people(*(f"p{number}" for number in range(4)))
    statuses = [await api.status(person, "hello") for person in people]
    system.kill("aggregates")
    for person, status in zip(people, [*statuses[1:], statuses[0]], strict=True):
        (await api.post(f"/api/v1/statuses/{status['id']}/favourite", person)).ok()
        await api.follow(person, people[people.index(person) - 1])
    passed(system)
    system.fanline("down", "--only", "aggregates")
    reset_offsets("aggregates", "earliest", system.settings)
    system.up("aggregates")
    passed(system)
    await until_equal(stores, system, INSTANCE)
    mod = await moderator(api, stores)
    assert (await series(api, mod, "sign_ups", None))[-1] >= len(people)
    assert (await series(api, mod, "active_users", None, "day"))[-1] >= len(people)


async def test_series_that_redis_has_lost_are_counted_again(api: Api, system: Stack, stores: Stores) -> None:
    ada = await api.person("lost")
    await api.status(ada, "kept by the database")
    passed(system)
    now = int(time.time())
    for resolution in RESOLUTIONS.values():
        stores.redis([command(Series(INSTANCE, resolution, floor_to(now, resolution.period)).key(), b"DEL")])
    stores.redis([command(active_users.counted_key(), b"DEL")])
    assert await total(api, ada, "posts") == 1
    await api.status(ada, "makes the flow look")
    passed(system)
    await until_equal(stores, system, INSTANCE)
    assert stores.redis([command(active_users.counted_key(), b"EXISTS")]) == [1]


async def test_without_redis_the_database_answers_the_same(api: Api, system: Stack) -> None:
    ada = await api.person("twice")
    await api.status(ada, "seen by both")
    passed(system)
    async with running_api(system.settings, redis_url=SecretStr("redis://127.0.0.1:1")) as without:
        assert await total(without, ada, "posts") == await total(api, ada, "posts") == 1
        assert (await without.get("/api/v1/instance/activity")).ok() != []


async def test_of_a_deleted_account_no_series_is_left(api: Api, system: Stack, stores: Stores) -> None:
    ada, bob = await api.people("gone", "stays")
    status = await api.status(bob, "liked for a while")
    (await api.post(f"/api/v1/statuses/{status['id']}/favourite", ada)).ok()
    passed(system)
    assert (await total(api, ada, "posts"), await total(api, bob, "likes_received")) == (0, 1)
    stores.connection.execute("DELETE FROM users WHERE id = %s", [UUID(ada.id)])
    passed(system)
    now = int(time.time())
    keys = [Series(UUID(ada.id), each, floor_to(now, each.period)).key() for each in RESOLUTIONS.values()]
    assert stores.redis([command(key, b"EXISTS") for key in keys]) == [0, 0, 0]
    assert await total(api, bob, "likes_received") == 0


async def test_only_owners_and_moderators_see_series(api: Api, stores: Stores) -> None:
    ada, bob = await api.people("owner", "curious")
    mod = await moderator(api, stores)
    path = f"/api/v1/aggregates?metric=posts&account_id={ada.id}"
    assert (await api.get(path)).status == 401
    (await api.get(path, bob)).fails(403)
    (await api.get("/api/v1/aggregates?metric=posts", bob)).fails(403)
    for viewer in (ada, mod):
        (await api.get(path, viewer)).ok()
    (await api.get("/api/v1/aggregates?metric=deliveries", mod)).ok()
    (await api.get(f"/api/v1/aggregates?metric=posts&account_id={UUID(int=1)}", mod)).fails(404)
    (await api.get("/api/v1/aggregates?metric=posts&account_id=x", mod)).fails(404)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 422),
        ("metric=nothing", 422),
        ("metric=likes", 422),
        ("metric=posts&resolution=second", 422),
        ("metric=posts&from=yesterday", 422),
        ("metric=posts&from=0001-01-01T00:00:00Z&resolution=day", 200),
        ("metric=posts&to=9999-12-31T23:59:59Z", 200),
        ("metric=posts&from=2999-01-01T00:00:00Z", 200),
        ("metric=posts&resolution=minute&from=2000-01-01T00:00:00Z", 200),
    ],
)
async def test_what_cannot_be_asked_is_refused(api: Api, query: str, status: int) -> None:
    ada = await api.person("asks")
    answer = await api.get(f"/api/v1/aggregates?account_id={ada.id}&{query}", ada)
    assert answer.status == status, answer.body
    if status != 200:
        answer.fails(status)


async def test_a_series_lists_every_bucket_between_its_ends(api: Api) -> None:
    ada = await api.person("lists")
    now = datetime.now(UTC).replace(minute=30, second=0, microsecond=0)
    start, end = now - timedelta(hours=5), now - timedelta(hours=2)
    query = f"metric=posts&account_id={ada.id}&from={start:%Y-%m-%dT%H:%M:%SZ}&to={end:%Y-%m-%dT%H:%M:%SZ}"
    answer = (await api.get(f"/api/v1/aggregates?{query}", ada)).ok()
    wanted = [start - timedelta(minutes=30) + timedelta(hours=hour) for hour in range(4)]
    assert [bucket["at"] for bucket in answer["buckets"]] == [f"{at:%Y-%m-%dT%H:00:00.000Z}" for at in wanted]
    assert answer["from"] == answer["buckets"][0]["at"]


async def test_everybody_sees_the_activity_of_twelve_weeks(api: Api, system: Stack, stores: Stores) -> None:
    ada = await api.person("active")
    await api.status(ada, "counts")
    passed(system)
    weeks = (await api.get("/api/v1/instance/activity")).ok()
    assert len(weeks) == 12
    monday = datetime.fromtimestamp(int(weeks[0]["week"]), UTC)
    assert (monday.weekday(), monday.hour) == (0, 0)
    assert int(weeks[0]["week"]) - int(weeks[1]["week"]) == 7 * DAY
    counted = "SELECT count(*) AS n FROM users WHERE created_at >= %(since)s"
    (row,) = stores.rows(Query(counted, {"since": monday}))
    assert int(weeks[0]["registrations"]) == row["n"]
    assert int(weeks[0]["statuses"]) >= 1
    assert int(weeks[0]["logins"]) >= 1
    assert (await api.get("/api/v2/instance")).ok()["usage"]["users"]["active_month"] >= 1


async def test_deliveries_are_measured(api: Api, system: Stack, stores: Stores) -> None:
    ada, bob = await api.people("sends", "reads")
    mod = await moderator(api, stores)
    await api.follow(bob, ada)
    passed(system)
    before = sum(await series(api, mod, "deliveries", None, "minute"))
    assert sum(await series(api, ada, "deliveries", ada, "minute")) == 0
    deadline = time.monotonic() + 20
    while sum(await series(api, mod, "deliveries", None, "minute")) <= before:
        assert time.monotonic() < deadline, "no delivery was measured"
        # The first reads after a write of one's own are answered by the database and warm nothing.
        (await api.get("/api/v1/timelines/home", bob)).ok()
        await api.status(ada, "delivered")
        passed(system)
    assert sum(await series(api, ada, "deliveries", ada, "minute")) > 0
    assert sum(await series(api, bob, "deliveries", bob, "minute")) == 0


async def test_minutes_hours_and_days_hold_the_same_sum(api: Api, system: Stack) -> None:
    ada = await api.person("sums")
    for text in ("one", "two", "three"):
        await api.status(ada, text)
    passed(system)
    sums = [sum(await series(api, ada, "posts", ada, each.name)) for each in (MINUTE, HOUR, DAILY)]
    assert sums == [3, 3, 3]
