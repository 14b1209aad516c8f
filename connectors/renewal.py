"""Connectors that begin anew with another database, after a move to it (docs/operations/replicate.md).

Debezium keeps a connector's place by the connector's name: an LSN of the old database, which means nothing in the new
one. So the connector sends what is left, is stopped, its place forgotten and its slot dropped, and only then it is
given its new configuration: it makes its slot in the new database and begins there.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from connectors import connect, plan, slots
from connectors.barrier import Barrier
from connectors.connect_client import ConnectClient, ConnectorRefused
from fanline.database import CONNECT_TIMEOUT_SECONDS
from fanline.database import connect as connect_to_database
from fanline.errors import DependencyUnavailable
from fanline.replica import READ_WRITE
from fanline.settings import Settings

PLACE = ("database.hostname", "database.port", "database.dbname")
SLOT = "slot.name"
STOPPED = "STOPPED"


@dataclass(frozen=True)
class Renewal:
    """What one connector reads, and what it is to read; `before` is None when Connect does not know it."""

    name: str
    before: plan.Config | None
    config: plan.Config
    stopped: bool = False

    @property
    def moves(self) -> bool:
        """Whether it reads another database than it is to read."""
        return self.before is not None and _place(self.before) != _place(self.config)

    @property
    def is_needed(self) -> bool:
        """Whether anything is to be done."""
        return self.before is None or self.moves or self.stopped

    def sentence(self) -> str:
        """What will be done."""
        there, slot = _place(self.config), self.config.get(SLOT, "")
        if not self.is_needed:
            return f"{self.name}: reads {there} already and is left alone"
        if not self.moves:
            return f"{self.name}: begins to read {there}"
        rows = "reads only what is written from then on"
        if self.config.get("snapshot.mode") != "no_data":
            rows = "reads all rows, then what is written from then on"
        return (
            f"{self.name}: sends the rest of {_place(self.before or {})}, forgets its place there and drops its slot;"
            f" makes the slot {slot} anew in {there} and {rows}"
        )


def planned(settings: Settings, folder: Path | None = None) -> list[Renewal]:
    """What has to be done for every connector to read the database that the settings name."""
    with connect.client(settings) as client:
        made = []
        for name, config in connect.wanted(settings, folder).items():
            status = client.status(name)
            made.append(Renewal(name, client.config(name), config, status is not None and status.state == STOPPED))
        return made


def carry_out(renewals: list[Renewal], settings: Settings, *, lost: bool = False) -> None:
    """Make the connectors read the new database; returns when their slots are there and read.

    What is written from then on is sent. Waits until everything of the old database is sent, and drops its slots,
    unless it is `lost`. Begun again, it goes on. Raises `ConnectorRefused` before anything is changed,
    `ConnectorFailed`, `DependencyUnavailable` and `FanlineError`.
    """
    todo = [each for each in renewals if each.is_needed]
    with connect.client(settings) as client:
        for each in todo:
            faults = client.validate(each.name, each.config)
            if faults:
                raise ConnectorRefused(each.name, faults)
        for each in todo:
            if each.moves:
                _leave(client, each, settings, lost=lost)
            _begin(client, each, settings)


def drain(settings: Settings, timeout: float) -> bool:
    """Wait until the pipeline has taken all that the database's log has; False when nothing of it reads this database.

    First every connector has sent it, that of the outbox too, then every flow that readers see has applied it. Raises
    `FanlineError` and `BarrierTimeout`, which say who is behind.
    """
    deadline = time.monotonic() + timeout
    by_slot = {config[SLOT]: name for name, config in connect.wanted(settings).items() if SLOT in config}
    with connect_to_database(settings, autocommit=True) as connection:
        found = slots.there(connection, sorted(by_slot))
        for slot in sorted(found):
            slots.await_passed(connection, slot, max(0.0, deadline - time.monotonic()))
    if not found:
        return False
    with Barrier(settings) as barrier:
        barrier.wait(max(0.0, deadline - time.monotonic()))
    return True


def _leave(client: ConnectClient, renewal: Renewal, settings: Settings, *, lost: bool) -> None:
    """Have the connector send the rest, forget its place, and leave no slot behind, which would keep the log."""
    slot, timeout = renewal.config.get(SLOT), settings.connect_timeout_seconds
    if slot is None or lost:
        client.forget_place(renewal.name)
        return
    with _connected(renewal.before or {}) as old:
        if not (renewal.stopped and not client.offsets(renewal.name)):  # else a renewal was interrupted after this
            slots.await_passed(old, slot, timeout)
            client.forget_place(renewal.name)
        slots.drop(old, slot, timeout)


def _begin(client: ConnectClient, renewal: Renewal, settings: Settings) -> None:
    name, config, timeout = renewal.name, renewal.config, settings.connect_timeout_seconds
    slot = config.get(SLOT)
    if slot is not None and renewal.moves:
        with _connected(config) as new:
            # From before a move back: it would send what the read models have long had.
            slots.drop(new, slot, timeout)
    client.put(name, config)
    if renewal.moves or renewal.stopped:
        client.resume(name)
    client.wait(name, lambda status: status.running)
    if slot is not None:
        with _connected(config) as new:
            slots.await_read(new, slot, timeout)


def _connected(config: plan.Config) -> "psycopg.Connection[Any]":
    """A session of the connector's role, in autocommit mode, that also writes where nobody may after a cutover."""
    names = {"host": "hostname", "sslmode": "sslmode"} | {key: key for key in ("port", "dbname", "user", "password")}
    place = {key: config[f"database.{name}"] for key, name in names.items()}
    try:
        return psycopg.connect(
            make_conninfo("", **place, options=READ_WRITE),
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
        )
    except psycopg.OperationalError as error:
        raise DependencyUnavailable(
            f"{_place(config)} does not answer: {str(error).strip().splitlines()[0]}.", "database"
        ) from error


def _place(config: plan.Config) -> str:
    host, port, database = (config.get(key, "") for key in PLACE)
    return f"{database} at {host}:{port}"
