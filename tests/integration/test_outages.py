"""Each server in turn is away from all flows at once: every flow that needs it says so, and nothing is lost.

All flows stand still while people write; when there is work for each, the server is stopped, and they go on.
"""

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psutil
import psycopg
import pytest

from connectors.backlog import Backlog
from connectors.barrier import Barrier
from connectors.flows import FLOWS
from fanline import database
from fanline.cli_dataflows import entry, of_flows
from sinks.parquet_query import open_archive, query
from sinks.parquet_store import open_store
from stack.layout import Layout
from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api
from tests.integration.channel_world import PushService, push_service
from tests.integration.contract.readmodel_load import read
from tests.integration.contract.valkey import wait_until
from tests.integration.test_push import pushable, subscribe
from tests.integration.test_search import SEARCH, until

NEEDS: Mapping[str, frozenset[str]] = {
    "followers": frozenset({"registry", "database", "redis"}),
    "timelines": frozenset({"registry", "database", "redis"}),
    "cards": frozenset({"registry", "database", "redis"}),
    "engagement": frozenset({"registry", "database", "redis"}),
    "aggregates": frozenset({"registry", "database", "redis"}),
    "archive": frozenset({"registry"}),
    "notifications": frozenset({"registry", "database"}),
    "search": frozenset({"registry", "database", "redis", "opensearch"}),
    "dispatcher": frozenset({"registry", "database", "redis"}),
    "push": frozenset({"registry", "database"}),
    "email": frozenset({"registry", "database"}),
    "trends": frozenset({"registry", "database", "redis"}),
}
"""What each flow cannot work without; a flow that is added gets its line here."""

SERVERS: Mapping[str, tuple[str, signal.Signals]] = {
    "redis": ("valkey", signal.SIGTERM),
    "registry": ("registry", signal.SIGKILL),
    "database": ("postgres", signal.SIGINT),
    "opensearch": ("opensearch", signal.SIGKILL),
}
"""The process behind each name, and how it is stopped: Redis keeps its data (of its loss tells test_faults.py), and
Postgres cuts its connections, as in a failover."""

LASTS: Mapping[str, float] = {"opensearch": 60.0}
"""How long a server stays away, in seconds; the others come back when all flows have said that they wait."""

TELLING = ("push", "email")
"""Flows that get work from another flow, which therefore stand still before it does."""
WRITTEN = {"cdc.posts", "cdc.likes", "cdc.follows", "cdc.markers", "post.created"}
"""Topics that `write` adds to: each flow but `TELLING` reads one of them."""

UNTOLD = """
SELECT count(*) FROM notifications n CROSS JOIN (VALUES ('push'), ('email')) AS channels(channel)
WHERE n.user_id = ANY(%s) AND n.type IN ('mention', 'favourite') AND NOT EXISTS (
    SELECT FROM notification_deliveries d WHERE d.notification_id = n.id AND d.channel = channels.channel)
"""
TOLD = "SELECT count(*) FROM notifications WHERE user_id = ANY(%s) AND type IN ('mention', 'favourite')"


@dataclass
class World:
    """The running system, and what these tests have written."""

    stack: Stack
    service: PushService
    connection: Callable[[], psycopg.Connection[Any]]
    told: list[UUID] = field(default_factory=list)
    """Who gets notifications pushed and mailed."""
    posts: list[str] = field(default_factory=list)

    async def people(self, api: Api, name: str) -> tuple[Person, Person]:
        """Somebody who writes, and somebody who is told of it through every channel."""
        ada, bob = await api.person(name), await pushable(api, name)
        await subscribe(api, bob, self.service.browser())
        self.told.append(UUID(bob.id))
        with self.connection() as connection:
            connection.execute("UPDATE identities SET confirmed_at = now() WHERE user_id = %s", [bob.id])
            connection.execute(
                "INSERT INTO email_preferences (user_id, digest, unsubscribe_token, next_digest_at)"
                " VALUES (%s, 'daily', %s, now() + interval '1 day')",
                [bob.id, bob.id],
            )
        # Much is kept only for those who read it.
        await read(api, [ada, bob])
        return ada, bob

    async def write(self, api: Api, ada: Person, bob: Person) -> None:
        """Something for every flow."""
        post = await api.status(ada, f"@{bob.username} hello #outage")
        answer = await api.status(bob, "hello", in_reply_to_id=post["id"])
        self.posts += [post["id"], answer["id"]]
        for path in (f"statuses/{answer['id']}/favourite", f"accounts/{bob.id}/unfollow", f"accounts/{bob.id}/follow"):
            (await api.post(f"/api/v1/{path}", ada)).ok()
        (await api.post("/api/v1/markers", bob, json={"notifications": {"last_read_id": post["id"]}})).ok()


@pytest.fixture(scope="module")
def world(system: Stack) -> Iterator[World]:
    with push_service() as service:
        yield World(system, service, lambda: database.connect(system.settings, autocommit=True))


@dataclass
class Frozen:
    """Flows that stand still."""

    stack: Stack
    pids: dict[str, int]
    stopped: set[str] = field(default_factory=set)

    def freeze(self, flows: Collection[str]) -> None:
        """Let flows stand still where they are."""
        for flow in flows:
            os.kill(self.pids[flow], signal.SIGSTOP)
            self.stopped.add(flow)

    def go_on(self, number: signal.Signals = signal.SIGCONT) -> None:
        """Let them go on; by SIGKILL, their supervisors start them anew."""
        while self.stopped:
            os.kill(self.pids[self.stopped.pop()], number)


@pytest.fixture
def frozen(system: Stack) -> Iterator[Frozen]:
    pids = {part["flow"]: part["pid"] for part in system.status()["dataflows"]}
    made = Frozen(system, pids)
    try:
        yield made
    finally:
        made.go_on()


def behind(stack: Stack) -> set[tuple[str, str]]:
    """The flows that have not applied everything, and the topics."""
    with closing(Backlog(stack.settings)) as backlog:
        return {(each.flow, each.topic) for each in backlog.measure() if each.records}


def have_work(stack: Stack, flows: Collection[str]) -> bool:
    wanted = {(flow, topic) for flow in flows for topic in FLOWS[flow] if flow in TELLING or topic in WRITTEN}
    assert {flow for flow, _ in wanted} == set(flows)
    return wanted <= behind(stack)


def waiting(stack: Stack) -> dict[str, set[str]]:
    """What each flow that runs says that it waits for."""
    layout = Layout(stack.settings)
    listed = [entry(layout, process, None) for process in of_flows(layout, ())]
    return {each["flow"]: set(each["waits_for"]) for each in listed if each["state"] == "running"}


def has_ended(process: psutil.Process) -> bool:
    """Whether a process has given up its ports, also while nobody has asked for its exit code."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until_all_say(stack: Stack, wanted: dict[str, set[str]]) -> None:
    """Wait until all flows run, and each says that it waits for just this."""
    deadline = time.monotonic() + 60
    while (found := await asyncio.to_thread(waiting, stack)) != wanted:
        assert time.monotonic() < deadline, {flow: found.get(flow) for flow in FLOWS if found.get(flow) != wanted[flow]}
        await asyncio.sleep(0.3)


def seconds_waited(stack: Stack, server: str) -> float:
    """How long the flow that waits for a server longest has done so, as it says."""
    layout = Layout(stack.settings)
    return max(entry(layout, process, None)["waits_for"].get(server, 0.0) for process in of_flows(layout, ()))


def listed_as_waiting(stack: Stack, server: str) -> set[str]:
    """The flows in whose lines `fanline dataflows list` names a server."""
    lines = stack.fanline("dataflows", "list", "--seconds", "0.1").stdout.splitlines()
    return {line.split()[0] for line in lines if re.search(rf" {server}, \d+ s$", line.rstrip())}


async def until_searched(api: Api, reader: Person, author: Person, posts: Collection[str], engine: str) -> None:
    """Wait until a search is answered by OpenSearch, or by the database in its stead, and finds every post."""

    async def found() -> bool:
        parameters = {"q": f"hello from:{author.username}", "type": "statuses"}
        answer = await api.get(SEARCH, reader, params=parameters)
        ids = {status["id"] for status in answer.ok()["statuses"]}
        return answer.headers["Fanline-Search"] == engine and ids == set(posts)

    await until(found, f"{engine} finds {posts}")


def audit(stack: Stack, prefix: str) -> None:
    done = stack.fanline("audit", "--prefix", prefix, "--json", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert all(tally["equal"] == tally["checked"] for tally in report.values()), report
    assert report["timelines"]["checked"] >= 2


def test_it_is_known_of_every_flow_what_it_needs() -> None:
    assert NEEDS.keys() == FLOWS.keys()
    assert frozenset().union(*NEEDS.values()) == SERVERS.keys()


@pytest.mark.parametrize("server", SERVERS)
async def test_every_flow_says_that_it_waits_for_it_and_loses_nothing_while_it_is_away(
    server: str, world: World, frozen: Frozen
) -> None:
    stack, everybody = world.stack, set(FLOWS)
    dependent = {flow for flow in FLOWS if server in NEEDS[flow]}
    name, number = SERVERS[server]
    written = len(world.posts)

    async def until_so(reached: Callable[[], bool], what: str) -> None:
        # Not more often: asking all flows takes half a core, which they need.
        deadline = time.monotonic() + 90
        while not await asyncio.to_thread(reached):
            assert time.monotonic() < deadline, f"not reached: {what}"
            await asyncio.sleep(0.3)

    async with running_api(stack.settings, search_timeout_seconds=15) as api:
        ada, bob = await world.people(api, f"away_{server}")
        # Whatever the flows need to learn of these records, they learn before.
        await world.write(api, ada, bob)
        await until_so(lambda: {flow for flow, _ in behind(stack)} <= {"archive"}, "all flows have read everything")
        for flows in (TELLING, everybody - set(TELLING)):
            frozen.freeze(flows)
            await world.write(api, ada, bob)
            await until_so(lambda flows=flows: have_work(stack, flows), f"there is work for {', '.join(flows)}")  # type: ignore[misc]
        process = psutil.Process(stack.pid(name))
        process.send_signal(number)
        try:
            await until_so(lambda: has_ended(process), f"{name} has ended")
            # What the registry knows a flow asks for once: the case that matters is a start without it.
            frozen.go_on(signal.SIGKILL if server == "registry" else signal.SIGCONT)
            if server != "database":
                await world.write(api, ada, bob)
            await until_all_say(stack, {flow: {server} if flow in dependent else set() for flow in FLOWS})
            assert await asyncio.to_thread(listed_as_waiting, stack, server) == dependent
            if server == "opensearch":
                await until_searched(api, bob, ada, world.posts[written::2], "database")
            await until_so(lambda: seconds_waited(stack, server) >= LASTS.get(server, 0.0), "it has been away for long")
        finally:
            frozen.go_on()
            await asyncio.to_thread(stack.up)
        await until_all_say(stack, {flow: set() for flow in FLOWS})
        await until_searched(api, bob, ada, world.posts[written::2], "opensearch")
    await asyncio.to_thread(audit, stack, f"away_{server}")


def test_every_notification_has_become_a_delivery_of_each_channel(world: World) -> None:
    with Barrier(world.stack.settings, ("notifications", *TELLING)) as barrier:
        barrier.wait(60)
    with world.connection() as connection:
        assert connection.execute(UNTOLD, [world.told]).fetchone() == (0,)
        [(told,)] = connection.execute(TOLD, [world.told]).fetchall()
    assert told >= 4 * len(world.told)

    def pushed() -> list[str]:
        browsers = world.service.browsers.values()
        return [each["notification_id"] for browser in browsers for each in browser.received]

    wait_until(lambda: len(set(pushed())) >= told, "all are pushed")
    assert len(set(pushed())) == len(pushed())


def test_every_post_is_archived_once(world: World) -> None:
    # It writes what it has gathered when it ends.
    world.stack.fanline("dataflows", "restart", "archive")
    archived = query(open_archive(open_store(world.stack.settings)), 'SELECT post_id FROM "post.created"')
    ours = set(world.posts)
    assert sorted(each for each in archived["post_id"].to_pylist() if each in ours) == sorted(world.posts)
