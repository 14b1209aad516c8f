"""Deletes rows whose time is over, in small transactions; CockroachDB expires most of them by itself."""

from typing import Any

import psycopg

from fanline import database
from fanline.settings import Settings

# Rows a transaction: few enough that none holds its locks for long.
BATCH = 5_000

# Table: (key columns, what is over). An event stays for a day after it was sent, for whoever looks into a fault; the
# log keeps an unsent one whatever happens to its row.
EXPIRED: dict[str, tuple[str, str]] = {
    "outbox": ("id", "created_at < now() - INTERVAL '1 day'"),
    "idempotency_keys": ("user_id, key", "created_at < now() - INTERVAL '1 hour'"),
    # Longer than Kafka keeps the events of which a replay would send again.
    "notification_deliveries": (
        "notification_id, channel, target",
        "created_at < now() - INTERVAL '30 days' AND state NOT IN ('pending', 'sending')",
    ),
    "authorization_codes": ("code_hash", "expires_at < now() - INTERVAL '1 day'"),
    "sessions": (
        "id",
        "expires_at < now() - INTERVAL '30 days' OR revoked_at < now() - INTERVAL '30 days'",
    ),
}


def prune(settings: Settings) -> dict[str, int]:
    """Delete what is over and return the rows deleted by table; safe to interrupt, and to run twice at once."""
    with database.connect(settings, autocommit=True) as connection:
        return {table: _prune(connection, table) for table in EXPIRED}


def _prune(connection: psycopg.Connection[Any], table: str) -> int:
    key, over = EXPIRED[table]
    statement = f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {over} LIMIT {BATCH})"
    total = 0
    while deleted := database.run_transaction_on(connection, lambda one: one.execute(statement.encode()).rowcount):
        total += deleted
    return total
