"""A workbench a test: topics and a consumer group of its own, and flows in processes that can be killed."""

import contextlib
import multiprocessing
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic  # type: ignore[attr-defined]

from connectors.applied import AppliedOffsets, Offsets
from connectors.flows import dead_letter_topic, group_of
from connectors.kafka_clients import client_config, consumer_config
from fanline.database import connect
from fanline.redis_nodes import RedisNodes
from fanline.resp import pack
from readmodels.archive import current
from sinks.opensearch_client import OpenSearchClient
from sinks.parquet_store import ParquetStore
from tests.conftest import Stack
from tests.integration.contract import child, valkey
from tests.integration.contract.child import KEYS, Plan
from tests.integration.contract.valkey import Valkey, wait_until

MARKS = [b"marks:%d" % number for number in range(KEYS)]
SINKS = ("redis", "redis-cluster", "batch", "coalescing", "kafka", "parquet", "opensearch", "sql")


# Importing Kafka's, Redis' and Bytewax' libraries takes longer than all that a flow does in these tests, so the
# processes are forked from one that has them.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["__main__", "tests.integration.contract.child"])


class Child:
    """A flow's process."""

    def __init__(self, plan: Plan, environment: dict[str, str], outcome: Path) -> None:
        self._ready = outcome.with_suffix(".ready")
        self._errors, self._read = outcome.with_suffix(".err"), outcome.with_suffix(".out")
        arguments = (replace(plan, ready=str(self._ready)), environment, str(outcome))
        self._process = FORKS.Process(target=child.run, args=arguments)
        self._process.start()

    @property
    def errors(self) -> str:
        """What the process has written to standard error."""
        return self._errors.read_text() if self._errors.exists() else ""

    def stop(self) -> int:
        """SIGTERM, and a clean end; returns how many records it had read."""
        wait_until(self._ready.exists, "the flow handles signals")
        self._process.terminate()
        assert self.ends() == 0, self.errors
        return int(self._read.read_text())

    def kill(self) -> None:
        """`kill -9`."""
        self._process.kill()
        assert self.ends() == -9

    def ends(self) -> int:
        """The exit code of a process that ends."""
        self._process.join(30)
        assert self._process.exitcode is not None, f"the flow does not end: {self.errors}"
        return self._process.exitcode

    def close(self) -> None:
        """Kill what still runs, and show what it said, should the test fail."""
        self._process.kill()
        self._process.join()
        self._process.close()
        sys.stderr.write(self.errors)


class Bench:
    """One test's topics, group and processes."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.name = f"streamio-{uuid.uuid4().hex[:10]}"
        self.flow = self.name
        self.group = group_of(self.name)
        self.admin = AdminClient(client_config(stack.settings, "contract"))
        self.offsets = AppliedOffsets(stack.settings, "contract")
        self._producer = Producer(
            client_config(stack.settings, "contract") | {"linger.ms": 5, "message.max.bytes": 2_000_000}
        )
        self._topics = [dead_letter_topic(self.flow)]
        self._children: list[Child] = []

    def topic(self, suffix: str = "in", partitions: int = 4, prefix: str = "") -> str:
        name = f"{prefix}{self.name}-{suffix}"
        self.admin.create_topics([NewTopic(name, partitions, 1)])[name].result(10)
        # The controller answers before the broker serves the new topic.
        wait_until(lambda: len(self.offsets.partitions([name])) == partitions, f"{name} is there")
        self._topics.append(name)
        return name

    def grow(self, topic: str, partitions: int) -> None:
        self.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(10)
        wait_until(lambda: len(self.offsets.partitions([topic])) == partitions, f"{topic} has grown")

    def produce(self, topic: str, records: int, value: bytes = b"value", partition: int | None = None) -> set[str]:
        """Records over all partitions, or in one; returns their marks."""
        marks: set[str] = set()

        def delivered(error: Any, record: Any) -> None:
            assert error is None, error
            marks.add(f"{record.topic()}/{record.partition()}/{record.offset()}")

        places = [p for _, p in self.offsets.partitions([topic])] if partition is None else [partition]
        for number in range(records):
            place = places[number % len(places)]
            self._produce(topic, value, b"%d" % number, partition=place, on_delivery=delivered)
        assert not self._producer.flush(20)
        assert len(marks) == records
        return marks

    def _produce(self, *arguments: Any, **options: Any) -> None:
        def accepted() -> bool:
            try:
                self._producer.produce(*arguments, **options)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._UNKNOWN_PARTITION:
                    raise
                # The producer's own list of partitions is older than the topic's growth.
                self._producer.list_topics(arguments[0], timeout=5)
                return False
            return True

        wait_until(accepted, "the producer knows the partition")

    def start(self, plan: Plan, instance: int = 0, instances: int = 1, **settings: str) -> Child:
        environment = self.stack.environment | {
            "FANLINE_STATE_DIR": str(self.folder / "state"),
            "FANLINE_FLOW_INSTANCE": str(instance),
            "FANLINE_FLOW_INSTANCES": str(instances),
            "FANLINE_EPOCH_SECONDS": "0.2",
        }
        started = Child(plan, environment | settings, self.folder / f"child-{len(self._children)}")
        self._children.append(started)
        return started

    def committed(self, topic: str) -> Offsets:
        return self.offsets.committed({self.group: self.offsets.partitions([topic])})[self.group]

    def until_applied(self, topic: str, timeout: float = 30.0) -> None:
        """Wait until the group's offsets are the ends of the topic."""
        ends = self.offsets.ends(self.offsets.partitions([topic]))
        wait_until(lambda: self.committed(topic) == ends, f"{self.group} has applied {ends}", timeout)

    def read(self, topic: str) -> list[Any]:
        """Every record of a topic."""
        ends = self.offsets.ends(self.offsets.partitions([topic]))
        with contextlib.closing(Consumer(consumer_config(self.stack.settings, "contract", "contract"))) as consumer:
            consumer.assign([TopicPartition(topic, partition, 0) for _, partition in ends])
            open_places, records = set(ends), []
            while open_places:
                for record in consumer.consume(500, 0.05):
                    if record.error() is not None:
                        open_places.discard((record.topic(), record.partition()))
                    else:
                        records.append(record)
        return records

    def close(self) -> None:
        for started in self._children:
            started.close()
        for answer in self.admin.delete_topics(self._topics).values():
            with contextlib.suppress(Exception):
                answer.result(10)


class Target:
    """Where a sink under test writes."""

    def __init__(self, bench: Bench, sink: str, servers: list[Valkey]) -> None:
        self.bench, self.sink, self.servers = bench, sink, servers
        self.topic = bench.topic("out", 2) if sink == "kafka" else ""
        self.archive = str(bench.folder / "archive")
        self.index = ""
        if sink == "opensearch":
            self.index, self.topic = bench.name, f"{bench.name}-write"
            client = OpenSearchClient(bench.stack.settings)
            client.create(self.index, {"mappings": {"dynamic": "strict"}, "aliases": {self.topic: {}}})
            client.close()
        if sink == "sql":
            self.topic = bench.name.replace("-", "_")
            self.sql(f"CREATE TABLE {self.topic} (mark text PRIMARY KEY)")

    def sql(self, statement: str) -> list[Any]:
        """Run a statement on the stack's database; its rows."""
        with connect(self.bench.stack.settings, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description is not None else []

    def plan(self, topic: str, **more: Any) -> Plan:
        url = self.servers[0].url if self.servers else ""
        kind, _, cluster = self.sink.partition("-")
        return Plan(self.bench.flow, [topic], kind, url, bool(cluster), self.topic, self.archive, **more)

    def refusing(self, topic: str) -> tuple[Plan, str]:
        """A plan whose writes are all refused, for a reason that no repetition mends; a part of what is said of it."""
        if self.sink == "parquet":
            return self.plan(topic, refuse=True), "The target refuses."
        if self.sink == "kafka":
            return replace(self.plan(topic), out_topic="no topic has blanks"), "Kafka did not take"
        if self.sink == "sql":
            self.sql(f"DROP TABLE {self.topic}")
            return self.plan(topic), "UndefinedTable"
        if self.sink == "opensearch":
            client = OpenSearchClient(self.bench.stack.settings)
            client.change_aliases([{"remove": {"index": self.index, "alias": self.topic}}])
            client.close()
            return self.plan(topic), "There is no index behind"
        nodes = RedisNodes(self.servers[0].url, cluster=len(self.servers) > 1)
        nodes.execute([(key, pack(b"SET", key, b"no set")) for key in MARKS])
        nodes.close()
        return self.plan(topic), "WRONGTYPE"

    def marks(self) -> set[str]:
        """What has arrived."""
        if self.sink == "parquet":
            return self.archived()
        if self.sink == "opensearch":
            return self.indexed()
        if self.sink == "sql":
            return {row[0] for row in self.sql(f"SELECT mark FROM {self.topic}")}
        if self.sink == "kafka":
            return {record.value().decode() for record in self.bench.read(self.topic)}
        nodes = RedisNodes(self.servers[0].url, cluster=len(self.servers) > 1)
        replies = nodes.execute([(key, pack(b"SMEMBERS", key)) for key in MARKS])
        nodes.close()
        return {member.decode() for reply in replies for member in reply}

    def indexed(self) -> set[str]:
        """The ids of the documents in the index."""
        client = OpenSearchClient(self.bench.stack.settings)
        number = client.count(self.index)
        client.call("PUT", f"/{self.index}/_settings", {"index.max_result_window": max(1, number)})
        body = {"size": number, "_source": False, "sort": ["_doc"]}
        answer = client.call("POST", f"/{self.index}/_search", body)
        client.close()
        return {hit["_id"] for hit in answer["hits"]["hits"]}

    def close(self) -> None:
        """Give back what others would see."""
        if self.sink == "sql":
            self.sql(f"DROP TABLE IF EXISTS {self.topic}")
        if self.index:
            client = OpenSearchClient(self.bench.stack.settings)
            client.delete(self.index)
            client.close()

    def archived(self) -> set[str]:
        """The marks in the files that readers take; each must be there once."""
        store = ParquetStore(Path(self.archive).as_uri())
        files = [file for topic in store.topics() for file in current(store.files(topic))]
        marks = [mark for file in files for mark in store.read(file)["mark"].to_pylist()]
        assert len(set(marks)) == len(marks)
        return set(marks)


@pytest.fixture
def bench(stack: Stack, tmp_path: Path) -> Iterator[Bench]:
    """The workbench."""
    made = Bench(stack, tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def redis_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[Valkey]]]:
    """The servers that a sink writes to, started once a run."""
    with contextlib.ExitStack() as running:
        started: dict[str, list[Valkey]] = {}

        def servers(sink: str) -> list[Valkey]:
            kind = {"redis": "one", "batch": "one", "coalescing": "one", "redis-cluster": "three"}.get(sink)
            if kind is None:
                return []
            if kind not in started:
                start = valkey.standalone if kind == "one" else valkey.cluster
                started[kind] = running.enter_context(start(tmp_path_factory.mktemp(kind)))
            for server in started[kind]:
                with contextlib.closing(server.client) as client:
                    client.execute_command("FLUSHALL")
            return started[kind]

        yield servers


@pytest.fixture(params=SINKS)
def target(
    bench: Bench, redis_servers: Callable[[str], list[Valkey]], request: pytest.FixtureRequest
) -> Iterator[Target]:
    """Every sink in turn."""
    made = Target(bench, request.param, redis_servers(request.param))
    try:
        yield made
    finally:
        made.close()
