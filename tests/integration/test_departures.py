"""An account is deleted: nothing in Redis tells of it any more, and nothing brings it back."""

import asyncio
import time
from collections.abc import Iterator
from uuid import UUID

import pytest

from audit.stores import Stores
from connectors import moves, recovery
from connectors.barrier import Barrier
from fanline.addresses import public_url
from readmodels import documents, incremental
from readmodels.cards import STATUS_CARD
from readmodels.effects import command
from readmodels.generations import identifier_of
from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api

FLOWS = ("followers", "timelines", "cards", "engagement", "dispatcher", "aggregates", "trends")
"""The flows that write Redis."""

# What may tell for a while that somebody is gone (docs/operations/deletion.md), and how long.
TOMBSTONES = {
    b"a": documents.GONE_SECONDS,
    b"v": documents.GONE_SECONDS,
    b"n": incremental.GONE_SECONDS,
    b"e": incremental.GONE_SECONDS,
}
# What the API knows of somebody who was signed in a moment ago, by its time to live.
OF_THE_API = {b"rate": 600, b"own": 3_600}


@pytest.fixture(scope="module")
def stores(system: Stack) -> Iterator[Stores]:
    opened = Stores(system.settings)
    yield opened
    opened.close()


async def live(api: Api, gone: Person, others: list[Person]) -> None:
    """Somebody and others do to each other what can be done, and then read."""
    mine = (await api.status(gone, "to be #gone"))["id"]
    await api.status(gone, "well?", poll={"options": ["yes", "no"], "expires_in": 3600})
    for other in others:
        theirs = (await api.status(other, f"hello @{gone.username}"))["id"]
        for one, another, status in ((gone, other, theirs), (other, gone, mine)):
            await api.follow(one, another)
            for verb in ("favourite", "bookmark", "reblog", "mute"):
                (await api.post(f"/api/v1/statuses/{status}/{verb}", one)).ok()
            await api.status(one, f"@{another.username} and you?", in_reply_to_id=status)
    for verb in ("mute", "block"):
        (await api.post(f"/api/v1/accounts/{gone.id}/{verb}", others[0])).ok()
        (await api.post(f"/api/v1/accounts/{others[1].id}/{verb}", gone)).ok()


async def read(api: Api, people: list[Person]) -> None:
    """Everybody reads what is kept only for those who read."""
    for person in people:
        for path in ("timelines/home", "notifications", f"accounts/{person.id}", "favourites", "bookmarks"):
            (await api.get(f"/api/v1/{path}", person)).ok()
        (await api.get(f"/api/v1/aggregates?metric=posts&account_id={person.id}", person)).ok()


def passed(system: Stack) -> None:
    with Barrier(system.settings, FLOWS) as barrier:
        barrier.wait(120)


def keys(stores: Stores) -> set[bytes]:
    return {key for some in stores.scan(b"*") for key in some}


def content(stores: Stores, key: bytes) -> bytes:
    """Everything that a key holds, whatever its type."""
    words: dict[bytes, tuple[bytes | int, ...]] = {
        b"hash": (b"HGETALL",), b"list": (b"LRANGE", 0, -1), b"set": (b"SMEMBERS",), b"zset": (b"ZRANGE", 0, -1),
    }  # fmt: skip
    kind = bytes(stores.redis([command(key, b"TYPE")])[0])
    held = stores.redis([command(key, *words.get(kind, (b"GET",)))])[0]
    return b"\n".join(held) if isinstance(held, list) else held or b""


def traces(stores: Stores, person: Person) -> dict[bytes, bytes]:
    """Keys that tell of somebody, by their names or in what they hold."""
    identifier = UUID(person.id)
    names = (person.id.encode(), identifier.hex.encode(), person.username.encode())
    found = {}
    for key in keys(stores):
        held = content(stores, key)
        if any(name in key + held for name in names) or identifier.bytes in held:
            found[key] = held
    return found


def until_kept(stores: Stores, person: Person, wanted: set[bytes]) -> None:
    """Returns when there are traces with each of these prefixes; deliveries are written once a second."""
    deadline = time.monotonic() + 10
    while missing := wanted - {key.partition(b":")[0] for key in traces(stores, person)}:
        assert time.monotonic() < deadline, f"nothing is kept under {missing}"
        time.sleep(0.05)


def as_the_database_has_it(stores: Stores, post: int, held: bytes) -> bool:
    """Whether the card of a post says what the database says: other people's texts, and whom they have answered."""
    reference = (STATUS_CARD, post)
    return (
        bool(documents.body(held))
        and stores.drive(documents.load([reference], public_url(stores.settings)))[reference] == held[8:]
    )


def left(stores: Stores, person: Person) -> dict[bytes, bytes]:
    """The traces that are neither other people's posts nor say for a while that somebody is gone."""
    found = {}
    for key, held in traces(stores, person).items():
        prefix = key.partition(b":")[0]
        seconds = stores.redis([command(key, b"TTL")])[0]
        says_nothing = not documents.body(held) if prefix in b"av" else held == incremental.GONE
        if prefix in TOMBSTONES and says_nothing and 0 < seconds <= TOMBSTONES[prefix]:
            assert identifier_of(key) == person.id.encode()
        elif prefix == STATUS_CARD.prefix and as_the_database_has_it(stores, int(identifier_of(key)), held):
            assert f'"username":"{person.username}"'.encode() not in held
        elif not (prefix in OF_THE_API and 0 < seconds <= OF_THE_API[prefix]):
            found[key] = held
    return found


def replay(system: Stack) -> None:
    """Every flow reads the whole log again."""
    system.fanline("dataflows", "stop", *FLOWS)
    for flow in FLOWS:
        planned = moves.plan(flow, "earliest", moves.standings(flow, system.settings), system.settings)
        with recovery.all_held(flow, system.settings) as held:
            moves.carry_out(flow, planned, system.settings)
            for store in held:
                recovery.forget(store)
    system.fanline("dataflows", "start", *FLOWS)
    passed(system)


def test_of_a_deleted_account_redis_tells_nothing_and_reading_the_log_again_brings_nothing_back(
    system: Stack, stores: Stores
) -> None:
    async def run() -> tuple[Person, list[Person]]:
        async with running_api(system.settings) as api:
            gone, *others = await api.people("leaver", "stayer", "stayer", "stayer")
            await read(api, [gone, *others])
            await asyncio.to_thread(passed, system)
            await live(api, gone, others)
            for _ in range(2):
                await asyncio.to_thread(passed, system)
                await read(api, [gone, *others])
            return gone, others

    gone, _ = asyncio.run(run())
    prefixes = {b"a", b"v", b"n", b"e", b"f", b"r", b"t", b"i", b"s", b"ts", b"post_people", b"tag_people"}
    until_kept(stores, gone, prefixes | {b"deliveries"})
    stores.connection.execute("DELETE FROM users WHERE id = %s", [UUID(gone.id)])
    passed(system)
    assert left(stores, gone) == {}
    replay(system)
    assert left(stores, gone) == {}
