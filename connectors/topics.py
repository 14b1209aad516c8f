"""Every topic that Fanline owns: made when missing, compared when there.

Row changes (`cdc.*`) are compacted and never expire: a flow that starts at the beginning always meets every live row,
and a delete is seen by whoever is at most a week behind. Domain events and dead letters are facts in time and expire.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the package exports them without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from connectors.flows import dead_letter_topic, flows_of, retry_topic
from connectors.kafka_clients import client_config, quiet_config
from fanline import addresses
from fanline.errors import DependencyUnavailable, FanlineError
from fanline.settings import Settings
from migrations.publications import CAPTURED
from schemas import contracts

TIMEOUT_SECONDS = 15.0
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

ROW_CHANGES = {"cleanup.policy": "compact", "delete.retention.ms": str(7 * DAY_MS), "segment.ms": str(DAY_MS)}
# One row each, written every second: only its newest change matters.
HEARTBEATS = {
    "cleanup.policy": "compact,delete",
    "retention.ms": str(DAY_MS),
    "segment.ms": str(HOUR_MS),
    "segment.bytes": str(16 * 1024 * 1024),
}
EVENTS = {"cleanup.policy": "delete", "retention.ms": str(7 * DAY_MS)}
# A changefeed's `resolved` messages have no key, and Kafka takes none without into a compacted topic: on CockroachDB
# every change of a row stays.
UNCOMPACTED = {"cleanup.policy": "delete", "retention.ms": "-1", "segment.ms": str(DAY_MS)}
# Long enough that a person finds the cause after a holiday and replays them.
DEAD_LETTERS = {"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS)}

# A record with the headers that tell where it came from is larger than it was in its own topic.
RETRIES = EVENTS | {"max.message.bytes": str(4 * 1024 * 1024)}


@dataclass(frozen=True)
class Topic:
    """A topic as it should be."""

    name: str
    partitions: int
    replication_factor: int
    config: dict[str, str]


@dataclass(frozen=True)
class Drift:
    """One way in which a topic is not as it should be."""

    topic: str
    what: str
    current: str
    wanted: str


@dataclass(frozen=True)
class Ensured:
    """What `ensure_topics` made and what it found different."""

    created: list[str]
    drifts: list[Drift]


def wanted(settings: Settings) -> list[Topic]:
    """Every topic, with the settings' partitions and replication."""
    replication = settings.kafka_replication_factor

    def topics(names: Iterable[str], partitions: int, config: dict[str, str]) -> list[Topic]:
        return [Topic(name, partitions, replication, config) for name in names]

    single = ("cdc.heartbeat", "cdc.signal", "__debezium-heartbeat.fanline", "__debezium-heartbeat.fanline_outbox")
    rows = (f"cdc.{table}" for table in CAPTURED if f"cdc.{table}" not in single)
    flows = flows_of(settings.database_dialect)
    changefeeds = settings.database_dialect == "cockroach"
    return [
        *topics(rows, settings.kafka_partitions, UNCOMPACTED if changefeeds else ROW_CHANGES),
        *topics(single, 1, HEARTBEATS | {"cleanup.policy": "delete"} if changefeeds else HEARTBEATS),
        *topics(["cdc.outbox"] if changefeeds else [], settings.kafka_partitions, EVENTS),
        *topics(contracts.load(), settings.kafka_partitions, EVENTS),
        *topics(map(dead_letter_topic, flows), 1, DEAD_LETTERS),
        *topics(map(retry_topic, flows), settings.kafka_partitions, RETRIES),
    ]


def compare(topic: Topic, partitions: int, replication_factor: int, config: dict[str, str]) -> list[Drift]:
    """How an existing topic differs from the wanted one."""
    facts = [
        ("partitions", str(partitions), str(topic.partitions)),
        ("replication factor", str(replication_factor), str(topic.replication_factor)),
    ]
    facts += [(key, config.get(key, ""), value) for key, value in topic.config.items()]
    return [Drift(topic.name, what, current, want) for what, current, want in facts if not _same(current, want)]


def ensure_topics(settings: Settings, *, fix: bool = False) -> Ensured:
    """Create the missing topics and report how the others differ; idempotent.

    With `fix`, differing configuration values are set. Partitions and replication are never changed here: another
    number of partitions moves keys, and their order is lost. Raises `DependencyUnavailable` when Kafka does not answer.
    """
    admin = AdminClient(client_config(settings, "fanline-topics") | quiet_config())
    topics = {topic.name: topic for topic in wanted(settings)}
    try:
        present = admin.list_topics(timeout=TIMEOUT_SECONDS).topics
        created = [name for name in topics if name not in present]
        if created:
            _create(admin, [topics[name] for name in created])
        drifts = _drifts(admin, [topic for name, topic in topics.items() if name in present], present)
        if fix:
            fixable = [drift for drift in drifts if drift.what in topics[drift.topic].config]
            _alter(admin, fixable)
            drifts = [drift for drift in drifts if drift not in fixable]
    except KafkaException as error:
        raise _translated(error, settings) from error
    return Ensured(created, drifts)


def _create(admin: AdminClient, topics: list[Topic]) -> None:
    new = [NewTopic(each.name, each.partitions, each.replication_factor, config=each.config) for each in topics]
    for future in admin.create_topics(new, operation_timeout=TIMEOUT_SECONDS).values():
        try:
            future.result(TIMEOUT_SECONDS)
        except KafkaException as error:
            # Somebody else was faster; the next run compares it.
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise


def _drifts(admin: AdminClient, topics: list[Topic], present: dict[str, Any]) -> list[Drift]:
    if not topics:
        return []
    resources = [ConfigResource(ResourceType.TOPIC, topic.name) for topic in topics]
    configs = {
        resource.name: future.result(TIMEOUT_SECONDS)
        for resource, future in admin.describe_configs(resources, request_timeout=TIMEOUT_SECONDS).items()
    }
    drifts = []
    for topic in topics:
        partitions = present[topic.name].partitions
        replicas = min((len(each.replicas) for each in partitions.values()), default=0)
        values = {key: entry.value or "" for key, entry in configs[topic.name].items()}
        drifts += compare(topic, len(partitions), replicas, values)
    return drifts


def _alter(admin: AdminClient, drifts: list[Drift]) -> None:
    entries: dict[str, list[ConfigEntry]] = {}
    for drift in drifts:
        entry = ConfigEntry(drift.what, drift.wanted, incremental_operation=AlterConfigOpType.SET)
        entries.setdefault(drift.topic, []).append(entry)
    if entries:
        resources = [
            ConfigResource(ResourceType.TOPIC, name, incremental_configs=each) for name, each in entries.items()
        ]
        for future in admin.incremental_alter_configs(resources).values():
            future.result(TIMEOUT_SECONDS)


def _translated(error: KafkaException, settings: Settings) -> FanlineError:
    fault = error.args[0]
    if fault.name() in ("_TRANSPORT", "_TIMED_OUT", "_ALL_BROKERS_DOWN", "_RESOLVE", "REQUEST_TIMED_OUT"):
        return DependencyUnavailable(f"Kafka does not answer at {addresses.kafka_bootstrap_servers(settings)}.")
    return FanlineError(f"Kafka refuses: {fault.str()}.")


def _same(current: str, want: str) -> bool:
    return set(current.split(",")) == set(want.split(","))
