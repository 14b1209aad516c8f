"""What Kafka Connect should run, and making it so."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from psycopg.conninfo import conninfo_to_dict

from connectors import plan
from connectors.connect_client import POLL_SECONDS, ConnectClient, ConnectorRefused
from fanline import addresses
from fanline.settings import Settings
from migrations.publications import CAPTURED

# A running task is replaced well within this time after its new configuration is known; until then its old state shows.
SETTLE_SECONDS = 1.0

Outcome = Literal["created", "changed", "restarted", "unchanged"]


@dataclass(frozen=True)
class Applied:
    """What `apply_all` did to one connector."""

    name: str
    outcome: Outcome
    changes: list[plan.Difference] = field(default_factory=list)


def client(settings: Settings) -> ConnectClient:
    """A client of the configured Connect."""
    return ConnectClient(addresses.connect_url(settings), settings.connect_timeout_seconds)


def placeholders(settings: Settings) -> dict[str, str]:
    """What templates may use, as Kafka Connect sees it."""
    url = settings.connect_database_url.get_secret_value() or (
        f"postgresql://fanline_cdc@{settings.host}:{settings.postgres_port}/fanline"
    )
    database = {key: str(value) for key, value in conninfo_to_dict(url).items()}
    return {
        "database_host": database.get("host", settings.host),
        "database_port": database.get("port", "5432"),
        "database_user": database.get("user", "fanline_cdc"),
        # Debezium wants a value even where the server trusts the role.
        "database_password": database.get("password", "unused"),
        "database_name": database.get("dbname", "fanline"),
        "database_sslmode": database.get("sslmode", "prefer"),
        "registry_url": addresses.connect_registry_url(settings),
        "captured_tables": ",".join(f"public.{table}" for table in CAPTURED),
        "kafka_servers": addresses.kafka_bootstrap_servers(settings),
        # Debezium's own placeholder, to be passed on as it is.
        "routedByValue": "${routedByValue}",
    }


def templates(settings: Settings) -> Path:
    """The folder of the templates for the database that the settings name."""
    return plan.TEMPLATES / "cockroach" if settings.database_dialect == "cockroach" else plan.TEMPLATES


def wanted(settings: Settings, folder: Path | None = None) -> dict[str, plan.Config]:
    """Every connector that should run, by name."""
    values = placeholders(settings)
    return {
        template.name: plan.fill(template, values) for template in plan.load_templates(folder or templates(settings))
    }


def diff_all(settings: Settings, folder: Path | None = None) -> dict[str, list[plan.Difference] | None]:
    """By connector, what `apply_all` would change; None for a connector that does not exist yet."""
    with client(settings) as connect:
        result: dict[str, list[plan.Difference] | None] = {}
        for name, config in wanted(settings, folder).items():
            current = connect.config(name)
            result[name] = None if current is None else plan.differences(current, config)
        return result


def apply_all(settings: Settings, folder: Path | None = None) -> list[Applied]:
    """Make Connect run every template and wait until it does; a second call changes nothing.

    A connector that failed is restarted once, a paused one stays paused. Raises `ConnectorRefused` before anything
    is changed, `ConnectorFailed` with the root cause, and `DependencyUnavailable`.
    """
    results: list[Applied] = []
    with client(settings) as connect:
        plans = [(name, config, connect.config(name)) for name, config in wanted(settings, folder).items()]
        todo = [
            (name, config) for name, config, current in plans if plan.differences(current, config) or current is None
        ]
        for name, config in todo:
            faults = connect.validate(name, config)
            if faults:
                raise ConnectorRefused(name, faults)
        for name, config, current in plans:
            outcome: Outcome = "unchanged"
            changes = plan.differences(current, config)
            if current is None or changes:
                connect.put(name, config)
                outcome = "created" if current is None else "changed"
            else:
                status = connect.status(name)
                if status and status.failed:
                    connect.restart(name, only_failed=True)
                    outcome = "restarted"
            results.append(Applied(name, outcome, changes))
        for applied in results:
            if applied.outcome == "restarted":
                _await_restart(connect, applied.name)
            elif applied.outcome == "changed":
                _await_new_tasks(connect, applied.name)
            connect.wait(applied.name, lambda status: status.running or status.state == "PAUSED")
    return results


def _await_restart(connect: ConnectClient, name: str) -> None:
    """Wait until the old failure is no longer what the status shows, at most a few seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        status = connect.status(name)
        if status and not status.failed:
            return
        time.sleep(POLL_SECONDS)


def _await_new_tasks(connect: ConnectClient, name: str) -> None:
    """Wait until the tasks of a changed connector are its new ones, at most a few seconds."""
    config = connect.config(name) or {}
    started = time.monotonic()
    while time.monotonic() < started + 5:
        configs = connect.task_configs(name)
        if configs and all(config.items() <= {"name": name, **task}.items() for task in configs):
            break
        time.sleep(POLL_SECONDS)
    settled = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < settled:
        status = connect.status(name)
        if status is None or not status.running:
            return
        time.sleep(POLL_SECONDS)
