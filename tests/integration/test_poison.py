"""A build that cannot read 1 % or all of the records: dead letters, the brake, and after the fix nothing is lost.

The real dataflows, each in turn, on all of their topics; a flow that is added is tested by standing in `FLOWS`.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer

from api.context import public_url_of
from audit.visitors import admitted
from connectors import moves, recovery
from connectors.applied import AppliedOffsets, Offsets
from connectors.backlog import Backlog
from connectors.barrier import Barrier
from connectors.flows import FLOWS, group_of
from connectors.kafka_clients import producer_config
from connectors.letter_log import Resolver, read_ledgers
from connectors.letters import Ledger, Letter, Origin
from connectors.offsets import Partition
from demo.graph import scale_free
from demo.load import tokens_by_number
from demo.people import load_graph
from demo.plan import Kind, plan
from demo.poster import Poster
from fanline import database
from tests.conftest import Stack
from tests.integration.builds import REASON, Build, unreadable
from tests.integration.contract.valkey import wait_until
from tests.integration.records import records_between

PREFIX = "poison"
GRAPH = scale_free(60, 1_500, seed=11)
IN_A_ROW = 5
POSTS, RATE, LIKES = 150, 100.0, 1_200
# Of so many changes of a table one in a hundred is practically never none.
OTHER_ROWS = 800
ROWS = """
INSERT INTO likes (user_id, post_id)
SELECT u.id, p.id FROM users u CROSS JOIN (SELECT id FROM posts WHERE id = ANY(%(posts)s) AND repost_of_id IS NULL) p
WHERE u.id = ANY(%(people)s) ORDER BY md5(u.id::text || p.id) LIMIT %(likes)s ON CONFLICT DO NOTHING
"""
OTHERS = """
WITH pairs AS (
  SELECT a.id AS a, b.id AS b FROM users a JOIN users b ON a.id < b.id
  WHERE a.id = ANY(%(people)s) AND b.id = ANY(%(people)s) ORDER BY md5(a.id::text || b.id::text) LIMIT %(others)s
), muted AS (
  INSERT INTO mutes (muter_id, muted_id) SELECT a, b FROM pairs ON CONFLICT DO NOTHING
), blocked AS (
  INSERT INTO blocks (blocker_id, blocked_id) SELECT b, a FROM pairs ON CONFLICT DO NOTHING
)
INSERT INTO bookmarks (user_id, post_id)
SELECT u.id, p.id FROM users u CROSS JOIN (SELECT id FROM posts WHERE id = ANY(%(posts)s) AND repost_of_id IS NULL) p
WHERE u.id = ANY(%(people)s) ORDER BY md5(p.id || u.id::text) LIMIT %(others)s ON CONFLICT DO NOTHING
"""


@dataclass
class Braked:
    """How a flow's process ended that could read nothing."""

    code: int
    said: str
    before: Offsets
    after: Offsets


@dataclass
class Story:
    """What bad builds made of a load, and good ones after them."""

    stack: Stack
    expected: dict[str, set[Origin]]
    """Of a build that cannot read 1 %: what each flow should have rejected."""
    letters: dict[str, list[Letter]]
    """What it has."""


def write(stack: Stack, name: str) -> None:
    """A set of people, with follows, posts, likes and more: all that the flows read."""
    settings, url = stack.settings, public_url_of(stack.settings)
    steps = plan(GRAPH, POSTS, RATE, seed=5)
    with database.connect(settings, autocommit=True) as connection:
        people = load_graph(connection, GRAPH, name).ids
        writers = [people[number] for number in {step.person for step in steps}]
        with admitted(connection, writers, "Poison", url) as tokens:
            outcome = asyncio.run(Poster(url, steps, tokens_by_number(steps, people, tokens)).run())
        assert outcome.failures == []
        parameters = {"people": people, "posts": outcome.posts, "likes": LIKES, "others": OTHER_ROWS}
        connection.execute(ROWS, parameters)
        connection.execute(OTHERS, parameters)
        # Not of somebody who has favourited over REST: an event told of it, and none would tell of its end.
        silent = min(set(range(len(people))) - {step.person for step in steps if step.kind is Kind.FAVOURITE})
        gone = connection.execute("DELETE FROM likes WHERE user_id = %s", [people[silent]]).rowcount
        assert gone > 0


def until_read(stack: Stack) -> None:
    """Wait until every flow has passed everything that was written, and what flows wrote because of it."""
    with Barrier(stack.settings, FLOWS) as barrier:
        barrier.wait(120)
        barrier.wait(120)
    with closing(Backlog(stack.settings)) as backlog:
        wait_until(lambda: all(not each.records for each in backlog.measure()), "all flows are at the ends", 120)


def standings(stack: Stack, flow: str) -> Offsets:
    """What a flow has applied of its topics."""
    applied = AppliedOffsets(stack.settings, "poison")
    places = applied.partitions(FLOWS[flow])
    return applied.committed({group_of(flow): places})[group_of(flow)]


def ledgers(stack: Stack) -> dict[str, Ledger]:
    return dict(read_ledgers(FLOWS, stack.settings))


def audit(stack: Stack) -> None:
    done = stack.fanline("audit", "--prefix", PREFIX, "--json", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["timelines"]["checked"] >= len(GRAPH.names)


@pytest.fixture(scope="module")
def stopped(system: Stack) -> Iterator[Stack]:
    """The system without its dataflows; they run again afterwards."""
    for flow, ledger in ledgers(system).items():
        if ledger.open():
            Resolver(flow, system.settings).drop(ledger.open())
    system.fanline("dataflows", "stop")
    try:
        yield system
    finally:
        system.fanline("dataflows", "start")


@contextmanager
def building(
    stack: Stack, percent: int, folder: Path, flows: Iterable[str] = tuple(FLOWS), **settings: str
) -> Iterator[list[Build]]:
    """Builds of flows that run until they are stopped, or end by themselves."""
    with ExitStack() as running:
        yield [running.enter_context(closing(Build(stack, flow, percent, folder, **settings))) for flow in flows]


@pytest.fixture(scope="module")
def moment(system: Stack) -> str:
    """Before anything of this module was written."""
    with database.connect(system.settings) as connection:
        row: Any = connection.execute("SELECT clock_timestamp()").fetchone()
    return str(row[0].isoformat())


@pytest.fixture(scope="module")
def story(moment: str, stopped: Stack, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Everything was read by builds that cannot read 1 %."""
    stood = {flow: standings(stopped, flow) for flow in FLOWS}
    with building(stopped, 1, tmp_path_factory.mktemp("hundredth")) as builds:
        write(stopped, f"{PREFIX}a")
        until_read(stopped)
        for build in builds:
            build.stop()
    read = {flow: standings(stopped, flow) for flow in FLOWS}
    # One flow may have stopped further behind than another.
    before = {place: min(each[place] for each in stood.values() if place in each) for place in merged(stood)}
    after = {place: max(each.get(place, 0) for each in read.values()) for place in merged(read)}
    bad = [record for record in records_between(stopped.settings, before, after) if unreadable(record.value, 1)]
    expected = {
        flow: {
            Origin(record.topic, record.partition, record.offset)
            for record in bad
            if stood[flow].get(record.place, 0) <= record.offset < read[flow].get(record.place, 0)
        }
        for flow in FLOWS
    }
    return Story(stopped, expected, {flow: list(ledger.open()) for flow, ledger in ledgers(stopped).items()})


@pytest.fixture(scope="module")
def mended(story: Story, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ledger]:
    """Builds that can read everything were given back what was rejected, and every read model equals SQL."""
    with building(story.stack, 0, tmp_path_factory.mktemp("mended")) as builds:
        for flow in FLOWS:
            assert Resolver(flow, story.stack.settings).replay(story.letters[flow]) == []
        until_read(story.stack)
        audit(story.stack)
        for build in builds:
            build.stop()
    return ledgers(story.stack)


@pytest.fixture(scope="module")
def braked(
    moment: str, story: Story, mended: dict[str, Ledger], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Braked]:
    """A second load was given to builds that can read nothing, which had to end."""
    stack = story.stack
    write(stack, f"{PREFIX}b")
    # What comes of notifications is read by other flows: one that works writes them, and then goes back.
    with closing(Build(stack, "notifications", 0, tmp_path_factory.mktemp("notifying"))) as notifying:
        with Barrier(stack.settings, ["notifications"]) as barrier:
            barrier.wait(120)
        notifying.stop()
    go_back(stack, "notifications", moment)
    with Barrier(stack.settings, []) as captured:
        captured.wait(60)
    before = {flow: standings(stack, flow) for flow in FLOWS}
    with closing(Backlog(stack.settings)) as backlog:
        unread = Counter(each.flow for each in backlog.measure() for _ in range(min(each.records, IN_A_ROW)))
    flows = [flow for flow in FLOWS if unread[flow] >= IN_A_ROW]
    brake = {"FANLINE_DEAD_LETTER_CONSECUTIVE": str(IN_A_ROW)}
    with building(stack, 100, tmp_path_factory.mktemp("braked"), flows, **brake) as builds:
        return {
            build.flow: Braked(build.ends(180), build.said, before[build.flow], standings(stack, build.flow))
            for build in builds
        }


def merged(those: dict[str, Offsets]) -> set[Partition]:
    """The partitions that any flow reads."""
    return {place for each in those.values() for place in each}


def go_back(stack: Stack, flow: str, moment: str) -> None:
    """What `fanline offsets reset` does."""
    planned = moves.plan(flow, moment, moves.standings(flow, stack.settings), stack.settings)
    with recovery.all_held(flow, stack.settings) as stores:
        moves.carry_out(flow, planned, stack.settings)
        for store in stores:
            recovery.forget(store)


def spoil(stack: Stack) -> dict[str, set[Origin]]:
    """A record that nobody can read in each topic of each flow; where they are, by topic."""
    producer = Producer(producer_config(stack.settings, "poison"))
    written: dict[str, set[Origin]] = {}

    def delivered(error: KafkaError | None, record: Any) -> None:
        assert error is None
        written[record.topic()] = {Origin(record.topic(), record.partition(), record.offset())}

    for topic in {topic for topics in FLOWS.values() for topic in topics}:
        producer.produce(topic, b"\0\0\0\0\0 is no schema", b"poison", on_delivery=delivered)
    assert producer.flush(30) == 0
    return written


def test_a_bad_record_in_any_topic_is_a_dead_letter_of_each_flow_that_reads_it_and_holds_up_none(
    system: Stack,
) -> None:
    written = spoil(system)
    # The archive looks at records when it makes a file of them: contract/test_archive.py.
    flows = [flow for flow in FLOWS if flow != "archive"]
    with Barrier(system.settings, flows) as barrier:
        barrier.wait(60)
    for flow, ledger in read_ledgers(flows, system.settings).items():
        expected = set().union(*(written[topic] for topic in FLOWS[flow]))
        letters = [letter for letter in ledger.open() if letter.origin in expected]
        assert {letter.origin for letter in letters} == expected, flow
        assert {letter.reason for letter in letters} == {"The registry has no schema with id 0."}
        Resolver(flow, system.settings).drop(letters)
    assert {flow["name"]: flow["restarts"] for flow in system.status()["dataflows"] if flow["state"] != "running"} == {}


@pytest.mark.parametrize("flow", FLOWS)
def test_exactly_the_records_that_a_flow_cannot_read_become_its_dead_letters(story: Story, flow: str) -> None:
    assert {letter.origin for letter in story.letters[flow]} == story.expected[flow]
    assert {letter.reason for letter in story.letters[flow]} <= {REASON}


def test_there_was_something_to_reject_in_many_topics(story: Story) -> None:
    assert len({origin.topic for each in story.expected.values() for origin in each}) >= 5


@pytest.mark.parametrize("flow", FLOWS)
def test_after_the_fix_a_replay_loses_nothing(story: Story, mended: dict[str, Ledger], flow: str) -> None:
    assert mended[flow].open() == []
    assert mended[flow].resolved["replayed"] >= len(story.letters[flow])


@pytest.mark.parametrize("flow", FLOWS)
def test_a_flow_that_can_read_nothing_stops_and_keeps_its_place(braked: dict[str, Braked], flow: str) -> None:
    assert flow in braked, f"fewer than {IN_A_ROW} records came for {flow}"
    found = braked[flow]
    assert found.code == 1, found.said
    assert f"The flow {flow} stops, as it had to reject {IN_A_ROW} records in a row" in found.said
    assert REASON.rstrip(".") in found.said
    # What it passed before the last of them came is among its dead letters; the rest waits for the fix.
    assert sum(found.after[place] - at for place, at in found.before.items()) < IN_A_ROW


def test_after_that_fix_nothing_is_lost_either(
    story: Story, braked: dict[str, Braked], tmp_path_factory: pytest.TempPathFactory
) -> None:
    stack = story.stack
    with building(stack, 0, tmp_path_factory.mktemp("again")) as builds:
        until_read(stack)
        # What was rejected before the stop has been read since; to send it back as well changes nothing.
        for flow, ledger in ledgers(stack).items():
            assert Resolver(flow, stack.settings).replay(ledger.open()) == []
        until_read(stack)
        audit(stack)
        for build in builds:
            build.stop()
    assert {flow: ledger.open() for flow, ledger in ledgers(stack).items() if ledger.open()} == {}
