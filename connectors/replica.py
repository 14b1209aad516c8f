"""The steps of a move to another database (docs/operations/replicate.md): the target made ready, the switch."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # exported without saying so
from psycopg import sql
from pydantic import SecretStr

from connectors import connect as kafka_connect
from connectors import plan, recovery, renewal, slots
from connectors.applied import AppliedOffsets
from connectors.flows import group_of
from connectors.kafka_clients import REQUEST_TIMEOUT_SECONDS, client_config, typed_error
from fanline.database import connect, run_transaction_alone
from fanline.errors import ConfigurationError, FanlineError
from fanline.replica import LEFT_OUT, Route
from fanline.settings import Settings
from sinks import replica
from sinks.replica import Table
from sinks.replica_verify import Compared, compare
from sinks.sql import SqlTransactions

TEMPLATES = plan.TEMPLATES / "replicate"
POLL_SECONDS = 0.1

FOREIGN_KEYS = """
SELECT c.conname AS name, r.relname AS relation, pg_get_constraintdef(c.oid) AS definition
FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid JOIN pg_namespace n ON n.oid = r.relnamespace
WHERE c.contype = 'f' AND n.nspname = 'public' ORDER BY r.relname, c.conname
"""
OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename = current_user
  AND backend_type = 'client backend'
"""

FORGET = "DELETE FROM replica_positions WHERE topic = %s"
GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND)


class NotEqual(FanlineError):
    """The two databases differ; the message says where."""


def copied(route: Route) -> dict[str, Table]:
    """The tables that are copied; raises `ConfigurationError` when the target lacks one, or a column."""
    there = SqlTransactions(route.target, route.flow)
    here = SqlTransactions(route.source, route.flow)
    try:
        mine, theirs = here.run(replica.tables), there.run(replica.tables)
    finally:
        there.close()
        here.close()
    wanted = {name: table for name, table in mine.items() if name not in LEFT_OUT}
    missing = sorted(name for name, table in wanted.items() if theirs.get(name) != table)
    if missing:
        raise ConfigurationError(
            f"The databases have different tables: {', '.join(missing)}. Run fanline migrate on both."
        )
    return wanted


def start(route: Route, settings: Settings, *, snapshot: bool) -> int:
    """Make the target ready and the connector run; returns how many tables are copied. Idempotent.

    After `stop` everything is copied again. Raises `ConfigurationError` when the target is not migrated, or has rows
    and is no copy that was begun here: its foreign keys are in force, as they are again after `cut_over`.
    """
    for side in (route.source, route.target):
        run_transaction_alone(side, _make_books)
    tables = copied(route)

    def make_ready(connection: "psycopg.Connection[Any]") -> None:
        begun = connection.execute("SELECT FROM replica_constraints").rowcount > 0
        full = [name for name in tables if _has_rows(connection, name)]
        if snapshot and full and not begun:
            raise ConfigurationError(f"The database to copy to is not empty: {', '.join(sorted(full))} have rows.")
        _drop_foreign_keys(connection)

    run_transaction_alone(route.target, make_ready)
    _make_topic(route, settings)
    run_transaction_alone(route.source, lambda connection: _publish(connection, route.slot, sorted(tables)))
    config = _config(route, settings, sorted(tables), snapshot=snapshot)
    with kafka_connect.client(settings) as client:
        current = client.config(f"fanline-replica-{route.direction}")
        if current is None or plan.differences(current, config):
            client.put(f"fanline-replica-{route.direction}", config)
        client.wait(f"fanline-replica-{route.direction}", lambda status: status.running)
    return len(tables)


def behind(route: Route, settings: Settings) -> tuple[int, int]:
    """Records of the topic, and how many of them are applied."""
    offsets = AppliedOffsets(settings, route.flow)
    places = offsets.partitions([route.changes])
    applied = offsets.committed({group_of(route.flow): places}).get(group_of(route.flow), {})
    return sum(offsets.ends(places).values()), sum(applied.values())


def verify(route: Route) -> Iterator[Compared]:
    """Compare every table, range by range."""
    tables = copied(route)
    with connect(route.source, autocommit=True) as source, connect(route.target, autocommit=True) as target:
        for name in sorted(tables):
            yield compare(source, target, tables[name])


@dataclass(frozen=True)
class CutOver:
    """What a switch has found."""

    tables: list[Compared]
    drained: bool
    """Whether a pipeline read the old database, and has taken everything; False if none did."""


def cut_over(route: Route, timeout: float) -> CutOver:
    """Stop writes to the source, wait until all of it is taken, compare, and give the target its foreign keys.

    Taken by the pipeline, of which nothing may be left in the source's log (the outbox is not copied), and by the
    target. When it fails the source takes writes again; afterwards it refuses them until `take_writes`. Raises
    `NotEqual`, and `FanlineError` when somebody has not caught up within `timeout` seconds.
    """
    refuse_writes(route.source)
    try:
        drained = renewal.drain(route.source, timeout)
        _drain(route, timeout)
        found = list(verify(route))
        if different := [each for each in found if each.differences]:
            raise NotEqual(
                f"The databases differ in {', '.join(each.table for each in different)}; nothing is switched."
            )
        run_transaction_alone(route.target, _restore_foreign_keys)
    except BaseException:
        take_writes(route.source)
        raise
    return CutOver(found, drained)


def refuse_writes(side: Settings) -> None:
    """Make every session of the database but the replication's own read-only, from now on and those that are open."""
    _set_read_only(side, True)
    with connect(side, autocommit=True) as connection:
        connection.execute(OTHERS)


def take_writes(side: Settings) -> None:
    """Undo `refuse_writes`; sessions that are open go on with the next connection."""
    _set_read_only(side, False)
    with connect(side, autocommit=True) as connection:
        connection.execute(OTHERS)


def stop(route: Route, settings: Settings) -> None:
    """Remove the connector, slot, publication, topic and consumer group; what was copied stays. Idempotent.

    Raises `ConfigurationError` while the copying runs on this machine: it would go on at its old place in a new topic.
    """
    with recovery.all_held(route.flow, settings):
        _stop(route, settings)


def _stop(route: Route, settings: Settings) -> None:
    name = f"fanline-replica-{route.direction}"
    with kafka_connect.client(settings) as client:
        if client.config(name) is not None:
            client.forget(name)
    with psycopg.connect(route.connect_url, autocommit=True) as connection:
        slots.drop(connection, route.slot, settings.connect_timeout_seconds)
    with connect(route.source, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP PUBLICATION IF EXISTS {}").format(sql.Identifier(route.slot)))
    admin = AdminClient(client_config(settings, route.flow))
    for answer in (
        admin.delete_topics([route.changes])[route.changes],
        admin.delete_consumer_groups([group_of(route.flow)])[group_of(route.flow)],
    ):
        try:
            answer.result(REQUEST_TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() not in GONE:
                raise typed_error(settings, error.args[0]) from error


def _set_read_only(side: Settings, value: bool) -> None:
    with connect(side, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        setting = sql.SQL("true" if value else "false")
        connection.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}").format(name, setting))


def _drain(route: Route, timeout: float) -> None:
    mark = uuid.uuid4()
    run_transaction_alone(
        route.source, lambda connection: connection.execute("INSERT INTO replica_marks (id) VALUES (%s)", (mark,))
    )
    deadline = time.monotonic() + timeout
    with connect(route.target, autocommit=True) as connection:
        while not connection.execute("SELECT FROM replica_marks WHERE id = %s", (mark,)).rowcount:
            if time.monotonic() > deadline:
                raise FanlineError(
                    f"The flow {route.flow} has not caught up within {timeout:g} s; the source takes writes again."
                )
            time.sleep(POLL_SECONDS)


def _make_books(connection: "psycopg.Connection[Any]") -> None:
    for statement in replica.BOOKS:
        connection.execute(statement.encode())


def _has_rows(connection: "psycopg.Connection[Any]", table: str) -> bool:
    return connection.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier(table))).rowcount > 0


def _drop_foreign_keys(connection: "psycopg.Connection[Any]") -> None:
    for name, relation, definition in connection.execute(FOREIGN_KEYS).fetchall():
        connection.execute(
            "INSERT INTO replica_constraints (name, relation, definition) VALUES (%s, %s, %s)"
            " ON CONFLICT (name) DO UPDATE SET relation = excluded.relation, definition = excluded.definition",
            (name, relation, definition),
        )
        connection.execute(
            sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(sql.Identifier(relation), sql.Identifier(name))
        )


def _restore_foreign_keys(connection: "psycopg.Connection[Any]") -> None:
    kept = connection.execute("SELECT name, relation, definition FROM replica_constraints").fetchall()
    for name, relation, definition in kept:
        connection.execute(
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} " + definition).format(
                sql.Identifier(relation), sql.Identifier(name)
            )
        )
    connection.execute("DELETE FROM replica_constraints")


def _publish(connection: "psycopg.Connection[Any]", name: str, tables: list[str]) -> None:
    exists = connection.execute("SELECT FROM pg_publication WHERE pubname = %s", [name]).rowcount
    statement = "ALTER PUBLICATION {} SET TABLE {}" if exists else "CREATE PUBLICATION {} FOR TABLE {}"
    targets = sql.SQL(", ").join(map(sql.Identifier, tables))
    connection.execute(sql.SQL(statement).format(sql.Identifier(name), targets))


def _make_topic(route: Route, settings: Settings) -> None:
    """Make the topic. A new one counts from 0: what is known of an older one would hide its first records."""
    admin = AdminClient(client_config(settings, route.flow))
    topic = NewTopic(
        route.changes, 1, settings.kafka_replication_factor,
        config={"cleanup.policy": "delete", "retention.ms": "-1"},
    )  # fmt: skip
    try:
        admin.create_topics([topic], request_timeout=REQUEST_TIMEOUT_SECONDS)[route.changes].result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise typed_error(settings, error.args[0]) from error
        ends, _ = behind(route, settings)
        if ends:
            return
    run_transaction_alone(route.target, lambda connection: connection.execute(FORGET, [route.changes]))


def _config(route: Route, settings: Settings, tables: list[str], *, snapshot: bool) -> plan.Config:
    source = settings.model_copy(update={"connect_database_url": SecretStr(route.connect_url)})
    values = kafka_connect.placeholders(source) | {
        "direction": route.direction,
        "topic": route.topic,
        "slot": route.slot,
        "tables": ",".join(f"public.{table}" for table in tables),
        "snapshot": "initial" if snapshot else "no_data",
    }
    (template,) = plan.load_templates(TEMPLATES)
    return plan.fill(template, values)
