"""What is done to flows: read the log again, see every record three times, die, grow and shrink.

Flows run as processes of the tests (tests/integration/builds.py) in the place of those of the stack, all of them side
by side; a flow that is added is in it by standing in `FLOWS`.
"""

import os
import random
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from connectors import moves, recovery
from connectors.applied import AppliedOffsets, Offsets
from connectors.backlog import Backlog
from connectors.barrier import Barrier
from connectors.flows import FLOWS
from connectors.kafka_clients import producer_config
from fanline.database import connect
from tests.conftest import Stack
from tests.integration.builds import Build
from tests.integration.contract.valkey import wait_until
from tests.integration.records import records_between

TOPICS = sorted({topic for topics in FLOWS.values() for topic in topics})
CRASH_EPOCH = "0.02"
CRASH_BATCH = 5
LAST_SNAPSHOT = 12


@dataclass(frozen=True)
class Death:
    """Where a flow is killed: some seconds after its process has begun a snapshot."""

    snapshot: int
    after: float


@dataclass(frozen=True)
class Died:
    """How that went."""

    flow: str
    death: Death
    code: int
    unread: int
    """Records that it had not applied."""
    said: str


@contextmanager
def running(
    stack: Stack, folder: Path, instances: int = 1, deaths: Mapping[str, Death] | None = None
) -> Iterator[list[Build]]:
    """Every flow in some instances; they end cleanly with the block, unless they are to die."""
    with ExitStack() as processes:
        builds = []
        for instance in range(instances):
            place = folder / str(instance)
            place.mkdir(parents=True)
            for flow in FLOWS:
                more = {"FANLINE_FLOW_INSTANCE": str(instance), "FANLINE_FLOW_INSTANCES": str(instances)}
                prepare = None
                if deaths is not None:
                    more["FANLINE_EPOCH_SECONDS"] = CRASH_EPOCH
                    prepare = partial(die, deaths[flow])
                build = Build(stack, flow, 0, place, prepare=prepare, **more)
                builds.append(processes.enter_context(closing(build)))
        yield builds
        if deaths is None:
            for build in builds:
                build.stop()


def die(death: Death) -> None:
    """Have this process killed while it reads, in small bites."""
    from connectors import kafka_source

    reader: Any = kafka_source.KafkaReader
    # However many a flow asks for.
    reader.batch_records = property(lambda _: CRASH_BATCH, lambda _, wanted: None)
    snapshot, taken = reader.snapshot, 0

    def counted(self: kafka_source.KafkaReader) -> kafka_source.Snapshot:
        nonlocal taken
        taken += 1
        if taken == death.snapshot:
            threading.Timer(death.after, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return snapshot(self)

    reader.snapshot = counted


def deaths(dice: random.Random) -> dict[str, Death]:
    """A death for each flow."""
    return {flow: Death(dice.randint(1, LAST_SNAPSHOT), round(dice.uniform(0, 0.03), 4)) for flow in FLOWS}


def crash(stack: Stack, folder: Path, schedule: Mapping[str, Death]) -> list[Died]:
    """Run every flow until it has died as it should."""
    with running(stack, folder, deaths=schedule) as builds:
        codes = {build.flow: build.ends() for build in builds}
        said = {build.flow: build.said for build in builds}
    with closing(Backlog(stack.settings)) as backlog:
        left = backlog.measure()
    return [
        Died(flow, schedule[flow], codes[flow], sum(each.records for each in left if each.flow == flow), said[flow])
        for flow in FLOWS
    ]


def until_read(stack: Stack) -> None:
    """Wait until every flow has passed all that is written, and what flows wrote because of it."""
    with Barrier(stack.settings, FLOWS) as barrier:
        barrier.wait(120)
        barrier.wait(120)
    with closing(Backlog(stack.settings)) as backlog:
        wait_until(lambda: not any(each.records for each in backlog.measure()), "all flows are at the ends", 120)


def until_passed(stack: Stack) -> None:
    """Wait until every flow has passed all that is written now, while people go on writing."""
    with Barrier(stack.settings, FLOWS) as barrier:
        barrier.wait(120)


def until_sent(stack: Stack) -> None:
    """Wait until what is to be pushed is pushed; what a process was sending when it was killed is not sent again."""
    pending = """SELECT count(*) FROM notification_deliveries WHERE channel = 'push'
        AND (state = 'pending' OR state = 'sending' AND claimed_at > now() - interval '5 seconds')"""
    with connect(stack.settings, autocommit=True) as connection:
        wait_until(lambda: connection.execute(pending).fetchone() == (0,), "everything is pushed", 60)


def go_back(stack: Stack) -> dict[str, int]:
    """Let every flow read its topics from the beginning; how many records that are, by flow."""
    settings = stack.settings
    again = {}
    for flow in FLOWS:
        planned = moves.plan(flow, "earliest", moves.standings(flow, settings), settings)
        with recovery.all_held(flow, settings) as stores:
            moves.carry_out(flow, planned, settings)
            for store in stores:
                recovery.forget(store)
        again[flow] = sum(move.again for move in planned)
    return again


def forget_shares(stack: Stack) -> None:
    """What `fanline dataflows scale` does between two numbers of instances."""
    for flow in FLOWS:
        with recovery.all_held(flow, stack.settings) as stores:
            for store in stores:
                recovery.forget(store)


def places(stack: Stack) -> Offsets:
    """The ends of all topics that flows read."""
    offsets = AppliedOffsets(stack.settings, "contract")
    return offsets.ends(offsets.partitions(TOPICS))


def records_of(stack: Stack, topics: Iterable[str]) -> set[tuple[str, int, int]]:
    """Topic, partition and offset of every record of some topics."""
    offsets = AppliedOffsets(stack.settings, "contract")
    held = offsets.partitions(topics)
    found = records_between(stack.settings, offsets.starts(held), offsets.ends(held))
    return {record.position for record in found}


def send_again(stack: Stack, since: Offsets, until: Offsets, times: int) -> int:
    """Send the records of a stretch again, in their order, as Debezium does after a crash; how many were sent."""
    records = sorted(records_between(stack.settings, since, until), key=lambda record: (record.place, record.offset))
    producer = Producer(producer_config(stack.settings, "contract"))
    failed: list[object] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failed.append(error)

    for _ in range(times):
        for record in records:
            producer.produce(
                record.topic, record.value, record.key, record.partition,
                headers=list(record.headers), on_delivery=delivered,
            )  # fmt: skip
            producer.poll(0)
    assert not producer.flush(30)
    assert failed == []
    return times * len(records)


def instances_of(stack: Stack) -> dict[str, set[str]]:
    """Which instances of each flow have committed last."""
    with closing(Backlog(stack.settings)) as backlog:
        found: dict[str, set[str]] = {flow: set() for flow in FLOWS}
        for each in backlog.measure():
            found[each.flow].add(each.by)
    return found
