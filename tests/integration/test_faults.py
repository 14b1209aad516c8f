"""Faults in the middle of a load: afterwards every acknowledged post is there and every read model equals SQL."""

import asyncio
import json
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import psycopg
import pytest

from api.context import public_url_of
from audit.stores import Stores
from audit.visitors import admitted
from demo.graph import scale_free
from demo.load import tokens_by_number
from demo.people import Loaded, load_graph
from demo.plan import plan
from demo.poster import Acknowledged, Outcome, Poster
from fanline import database
from fanline.errors import DependencyUnavailable
from fanline.resp import pack
from readmodels import trend_marks
from readmodels.effects import Command
from tests.conftest import Stack
from tests.integration.contract.valkey import wait_until

POSTS, RATE, BEFORE_THE_FAULT = 150, 50.0, 40
PEOPLE, FOLLOWS = 40, 500
GRAPH = scale_free(PEOPLE, FOLLOWS, seed=3)

Fault = Callable[[Stack], Callable[[], None]]
"""Looks for what is to fail, while there is time; calling the result makes it fail at once, and mends it."""


def kill(*names: str) -> Fault:
    """kill -9; the supervisor or the operator starts them again."""

    def fault(system: Stack) -> Callable[[], None]:
        processes = [psutil.Process(system.pid(name)) for name in names]

        def strike() -> None:
            for process in processes:
                process.kill()
            # A large process takes a moment to give its port back.
            psutil.wait_procs(processes, 30)
            system.up()

        return strike

    fault.__name__ = f"{' '.join(names)} killed"
    return fault


def restart(name: str) -> Fault:
    """An orderly stop (of Postgres: a fast one) and a start."""

    def fault(system: Stack) -> Callable[[], None]:
        server = psutil.Process(system.pid(name))

        def strike() -> None:
            server.send_signal(signal.SIGINT)
            server.wait(60)
            system.up()

        return strike

    fault.__name__ = f"{name} restarted"
    return fault


def wipe_redis(system: Stack) -> Callable[[], None]:
    def strike() -> None:
        stores = Stores(system.settings)
        try:
            stores.redis([Command(b"", pack(b"FLUSHALL"))])
        finally:
            stores.close()

    return strike


FLOWS = (
    *("timelines", "followers", "cards"),
    *("engagement", "notifications", "search", "trends", "aggregates", "dispatcher"),
)
FAULTS = [
    kill(*FLOWS),
    kill("api"),
    kill("connect", "registry", "opensearch"),
    kill("kafka"),
    kill("valkey"),
    restart("postgres"),
    wipe_redis,
]


@pytest.fixture(scope="module")
def connection(system: Stack) -> Iterator[psycopg.Connection[Any]]:
    with database.connect(system.settings, autocommit=True) as connected:
        yield connected


@pytest.fixture(scope="module")
def crowd(system: Stack, connection: psycopg.Connection[Any]) -> Loaded:
    loaded = load_graph(connection, GRAPH, "faulty")
    audit(system)
    return loaded


def audit(system: Stack) -> None:
    until_trends_are_counted(system)
    # Other tests change rows without the events that the API writes with them.
    done = system.fanline("audit", "--prefix", "faulty", "--json", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert all(tally["equal"] == tally["checked"] for tally in report.values()), report
    assert report["timelines"]["checked"] >= PEOPLE


def until_trends_are_counted(system: Stack) -> None:
    """The barrier waits for what is in the log, and they are counted from the database after a loss."""
    stores = Stores(system.settings)
    try:
        wait_until(lambda: stores.drive(trend_marks.are_counted()), "trends are counted", 60)
    finally:
        stores.close()


def change_follows(connection: psycopg.Connection[Any], crowd: Loaded, dice: random.Random) -> None:
    """People follow and unfollow while others post."""
    for _ in range(30):
        follower, followee = dice.sample(crowd.ids, 2)
        if dice.random() < 0.5:
            connection.execute("INSERT INTO follows VALUES (%s, %s) ON CONFLICT DO NOTHING", (follower, followee))
        else:
            connection.execute("DELETE FROM follows WHERE (follower_id, followee_id) = (%s, %s)", (follower, followee))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_nothing_is_lost_when(fault: Fault, system: Stack, crowd: Loaded) -> None:
    dice = random.Random(fault.__name__)
    steps = plan(GRAPH, POSTS, RATE, seed=dice.randrange(1_000_000))
    writers = [crowd.ids[number] for number in {step.person for step in steps}]
    url = public_url_of(system.settings)
    strike = fault(system)
    started, acknowledged = threading.Event(), 0

    def count(_: Acknowledged) -> None:
        nonlocal acknowledged
        acknowledged += 1
        if acknowledged >= BEFORE_THE_FAULT:
            started.set()

    outcomes: list[Outcome] = []
    with (
        # The block ends with a delete of its sessions, for which a restarted database has no connection any more.
        suppress(DependencyUnavailable),
        database.connect(system.settings, autocommit=True) as connection,
        admitted(connection, writers, "Faults", url) as tokens,
    ):
        poster = Poster(url, steps, tokens_by_number(steps, crowd.ids, tokens), on_acknowledged=count)
        load = threading.Thread(target=lambda: outcomes.append(asyncio.run(poster.run())))
        load.start()
        try:
            assert started.wait(60), "the load does not get going"
            change_follows(connection, crowd, dice)
            assert load.is_alive(), "the load is over before anything fails"
            strike()
        finally:
            load.join()
    [outcome] = outcomes
    assert outcome.failures == []
    with database.connect(system.settings, autocommit=True) as connection:
        rows = connection.execute("SELECT id FROM posts WHERE id = ANY(%s)", [outcome.posts]).fetchall()
    kept = {row[0] for row in rows}
    reposts_of_deleted = {post for post in outcome.posts if post not in kept} - set(outcome.deleted)
    assert all(is_repost_of_deleted(post, outcome) for post in reposts_of_deleted)
    audit(system)


def is_repost_of_deleted(post_id: int, outcome: Outcome) -> bool:
    """Whether the post is gone because its original was deleted, which the plan asked for."""
    step = next(item.step for item in outcome.acknowledged if item.post_id == post_id)
    return step.kind == "repost"
