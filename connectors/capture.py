"""How far Debezium's connectors are behind the database: their states, and what their replication slots keep."""

from dataclasses import dataclass
from typing import Any

import psycopg

from connectors.connect_client import ConnectClient
from fanline.addresses import connect_url
from fanline.database import unavailable
from fanline.errors import DependencyUnavailable
from fanline.settings import Settings

# Bytes of the log that a slot's reader has not confirmed, and that the database keeps for it.
SLOTS = """
SELECT slot_name, active,
       pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint AS behind_bytes,
       pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS kept_bytes
FROM pg_replication_slots WHERE slot_type = 'logical' AND database = current_database()
"""


@dataclass(frozen=True, slots=True)
class Capture:
    """A connector: what Kafka Connect says of it and, where the database has slots, what its slot says."""

    name: str
    state: str
    tasks: tuple[str, ...]
    reason: str
    slot: str
    behind_bytes: int | None = None
    kept_bytes: int | None = None


def slots(connection: psycopg.Connection[Any]) -> dict[str, tuple[int, int]]:
    """Bytes behind and bytes kept by slot; empty on databases without slots. Raises `DependencyUnavailable`."""
    try:
        rows = connection.execute(SLOTS).fetchall()
    except (psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        return {}
    except psycopg.OperationalError as error:
        raise unavailable(error) from error
    return {name: (int(behind or 0), int(kept or 0)) for name, _, behind, kept in rows}


class Captures:
    """Asks Kafka Connect; keeps its connection and what does not change of the connectors."""

    def __init__(self, settings: Settings) -> None:
        # Whoever looks at the state of things does not wait for a rebalance to end.
        self._client = ConnectClient(connect_url(settings), timeout_seconds=2.0)
        self._slots: dict[str, str] = {}

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def look(self, found: dict[str, tuple[int, int]]) -> list[Capture]:
        """Every connector, by name, with the slots that were found; raises `DependencyUnavailable`."""
        captures = []
        for name in self._client.names():
            if name not in self._slots:
                self._slots[name] = (self._client.config(name) or {}).get("slot.name", "")
            status = self._client.status(name)
            slot = self._slots[name]
            behind, kept = found.get(slot, (None, None))
            if status is None:
                captures.append(Capture(name, "UNKNOWN", (), "", slot, behind, kept))
            else:
                captures.append(Capture(name, status.state, status.tasks, status.reason, slot, behind, kept))
        return captures


def unreachable(settings: Settings, error: DependencyUnavailable, found: dict[str, tuple[int, int]]) -> list[Capture]:
    """What is left to say when Kafka Connect does not answer: the slots alone."""
    return [Capture(slot, "UNKNOWN", (), str(error), slot, *numbers) for slot, numbers in sorted(found.items())]
