"""Replication slots of Postgres: how far their readers have come, and dropping them."""

import time
from typing import Any

import psycopg

from fanline.errors import FanlineError

POLL_SECONDS = 0.1

ACTIVE = "SELECT FROM pg_replication_slots WHERE slot_name = %(slot)s AND database = current_database() AND active"
DROP = """
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
WHERE slot_name = %(slot)s AND database = current_database()
"""
THERE = """
SELECT slot_name FROM pg_replication_slots WHERE slot_name = ANY(%(slots)s) AND database = current_database()
"""
# A message that no connector passes on: a reader without anything to read tells of its place seldom.
MARK = "SELECT pg_logical_emit_message(false, 'fanline_mark', '')::text"
PASSED = """
SELECT confirmed_flush_lsn >= %(mark)s::pg_lsn, confirmed_flush_lsn::text FROM pg_replication_slots
WHERE slot_name = %(slot)s AND database = current_database()
"""


def there(connection: "psycopg.Connection[Any]", slots: list[str]) -> set[str]:
    """Those among some slots that the database has."""
    return {name for (name,) in connection.execute(THERE, {"slots": slots}).fetchall()}


def await_passed(connection: "psycopg.Connection[Any]", slot: str, timeout: float) -> None:
    """Return when the reader of a slot has confirmed everything that the log has now.

    Debezium confirms what Kafka has acknowledged. Raises `FanlineError` after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    mark = connection.execute(MARK).fetchall()[0][0]
    while True:
        found = connection.execute(PASSED, {"slot": slot, "mark": mark}).fetchone()
        if found is not None and found[0]:
            return
        if time.monotonic() > deadline:
            at = "is gone" if found is None else f"is at {found[1]}"
            raise FanlineError(
                f"What reads the slot {slot} has not sent everything within {timeout:g} s: the log goes to {mark}, the "
                f"slot {at}. `fanline connectors status` tells why."
            )
        time.sleep(POLL_SECONDS)


def await_read(connection: "psycopg.Connection[Any]", slot: str, timeout: float) -> None:
    """Return when a slot is there and read; raises `FanlineError` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not connection.execute(ACTIVE, {"slot": slot}).rowcount:
        if time.monotonic() > deadline:
            raise FanlineError(
                f"Nothing reads the slot {slot} after {timeout:g} s: `fanline connectors status` tells why."
            )
        time.sleep(POLL_SECONDS)


def drop(connection: "psycopg.Connection[Any]", slot: str, timeout: float) -> None:
    """Drop a slot, once its reader has gone; one that is not there is no error. Needs autocommit."""
    deadline = time.monotonic() + timeout
    # The server notices after a moment that its reader has gone.
    while connection.execute(ACTIVE, {"slot": slot}).rowcount:
        if time.monotonic() > deadline:
            raise FanlineError(f"The replication slot {slot} is still in use.")
        time.sleep(POLL_SECONDS)
    connection.execute(DROP, {"slot": slot})
