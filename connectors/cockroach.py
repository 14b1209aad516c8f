"""What our side checks of a configuration for Debezium's CockroachDB connector, because Kafka Connect does not.

Its validation answers "no error" to a missing host, an unknown key and an unknown value alike (seen with 3.5.0.Final).
Names and values are those of the connector's configuration class and its README (debezium-connector-cockroachdb).
"""

import re
from collections.abc import Mapping

CONNECTOR_CLASS = "io.debezium.connector.cockroachdb.CockroachDBConnector"

REQUIRED = frozenset(
    ["database.hostname", "database.user", "database.dbname", "topic.prefix", "cockroachdb.changefeed.sink.uri"]
)
OWN_KEYS = frozenset(
    f"cockroachdb.{key}"
    for key in (
        "schema.name", "changefeed.envelope", "changefeed.enriched.properties", "changefeed.include.updated",
        "changefeed.include.diff", "changefeed.resolved.interval", "changefeed.cursor", "changefeed.batch.size",
        "changefeed.poll.interval.ms", "changefeed.sink.type", "changefeed.sink.uri", "changefeed.sink.options",
        "changefeed.sink.topic.prefix", "changefeed.kafka.bootstrap.servers",
        "changefeed.kafka.consumer.group.prefix", "changefeed.kafka.poll.timeout.ms",
        "changefeed.kafka.auto.offset.reset",
    )
)  # fmt: skip
COMMON_KEYS = frozenset(
    """
    name connector.class tasks.max topic.prefix snapshot.mode poll.interval.ms max.batch.size max.queue.size
    skipped.operations tombstones.on.delete schema.name.adjustment.mode field.name.adjustment.mode
    decimal.handling.mode binary.handling.mode time.precision.mode heartbeat.interval.ms signal.data.collection
    table.include.list table.exclude.list column.include.list column.exclude.list schema.include.list
    schema.exclude.list connection.timeout.ms connection.retry.delay.ms connection.max.retries
    database.hostname database.port database.user database.password database.dbname database.sslmode
    database.sslrootcert database.sslcert database.sslkey key.converter value.converter header.converter transforms
    """.split()  # noqa: SIM905  # a list of names, read as such
)
OPEN_PREFIXES = ("key.converter.", "value.converter.", "transforms.", "producer.override.")

# What this project's decoder understands, where the connector would take more.
VALUES: Mapping[str, frozenset[str]] = {
    "cockroachdb.changefeed.envelope": frozenset(["enriched"]),
    "cockroachdb.changefeed.sink.type": frozenset(["kafka"]),
    "cockroachdb.changefeed.include.updated": frozenset(["true"]),
    "cockroachdb.changefeed.include.diff": frozenset(["true"]),
    "cockroachdb.changefeed.enriched.properties": frozenset(["source", "source,schema", "schema,source"]),
    "snapshot.mode": frozenset(["initial", "always", "initial_only", "no_data", "never", "when_needed"]),
    "database.sslmode": frozenset(["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
    "decimal.handling.mode": frozenset(["precise", "double", "string"]),
}
_DURATION = re.compile(r"\d+(ms|s|m)")
_PREFIX = re.compile(r"[A-Za-z0-9._-]+")
_SINK = re.compile(r"kafka://[^/?]+:\d+(\?.*)?")


def faults(config: Mapping[str, str]) -> dict[str, list[str]]:
    """The faults of each key, empty when there is none; in the form of Kafka Connect's own answer."""
    found: dict[str, list[str]] = {key: ["is missing"] for key in sorted(REQUIRED) if not config.get(key)}
    for key, value in sorted(config.items()):
        known = key in OWN_KEYS or key in COMMON_KEYS or key.startswith(OPEN_PREFIXES)
        if not known:
            found[key] = ["is no setting of the connector"]
        elif key in VALUES and value not in VALUES[key]:
            found[key] = [f"is {value!r}, not one of {', '.join(sorted(VALUES[key]))}"]
    for key, pattern, what in (
        ("topic.prefix", _PREFIX, "letters, digits, dots, underscores and hyphens"),
        ("cockroachdb.changefeed.resolved.interval", _DURATION, "a duration such as 10s"),
        ("cockroachdb.changefeed.sink.uri", _SINK, "kafka://host:port"),
    ):
        given = config.get(key)
        if given and not pattern.fullmatch(given):
            found[key] = [f"is {given!r}, not {what}"]
    for kind in ("table", "column", "schema"):
        if {f"{kind}.include.list", f"{kind}.exclude.list"} <= config.keys():
            found[f"{kind}.exclude.list"] = [f"and {kind}.include.list exclude each other"]
    return found
