"""Whoever writes to the database writes in a transaction that is run again on a serialisation failure (40001)."""

import ast
import importlib
import re

import psycopg
import pytest

from connectors.waiting import TRANSIENT
from fanline.database import RETRYABLE
from sinks.sql import AGAIN
from tests.unit.sql_statements import ROOT

WRITES = re.compile(r"\b(INSERT INTO|UPDATE \w+ (\w+ )?SET|DELETE FROM)\b")

# Connections of their own, without the retry of `run_transaction`, `SqlTransactions` or `Performer`, and why.
OWN_CONNECTIONS = {
    "api/cli.py": "an operator's command, begun again by hand",
    "fanline/redis_connection.py": "connects to Redis",
    "audit/stores.py": "reads",
    "audit/visitors.py": "sessions of the audit's own, which the audit makes again at its next run",
    "connectors/barrier.py": "one statement; whoever waits at the barrier asks again",
    "connectors/cli_lag.py": "reads",
    "connectors/pipeline.py": "reads",
    "connectors/present.py": "reads",
    "connectors/renewal.py": "slots, outside of any transaction",
    "connectors/replica.py": "an operator's command, begun again by hand",
    "dataflows/effects.py": "`Performer` runs every query again (connectors/waiting.py: TRANSIENT)",
    "fanline/cli_load.py": "loads a graph once; begun again by hand",
    "fanline/cli_demo.py": "loads a graph once; begun again by hand",
    "fanline/database.py": "is where the retries are",
    "fanline/migrations_runner.py": "one migration at a time, under a lock",
    "fanline/pruning.py": "deletes what is over; the next run deletes what this one could not",
    "sinks/sql.py": "is where the flows' retries are",
}
ROOMS = ("api", "audit", "connectors", "dataflows", "demo", "fanline", "readmodels", "rebuild", "sinks")


def calls(room: str):
    for path in sorted((ROOT / room).rglob("*.py")):
        name = path.relative_to(ROOT)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield name, node


def test_a_serialisation_failure_is_run_again_by_every_way_to_write():
    assert psycopg.errors.SerializationFailure in RETRYABLE
    assert psycopg.errors.SerializationFailure in AGAIN
    assert issubclass(psycopg.errors.SerializationFailure, TRANSIENT)
    assert psycopg.errors.SerializationFailure.sqlstate == "40001"


def test_no_handler_writes_outside_a_transaction():
    """`Database.rows`, `row` and `read` do not run again what has failed: they are for reading."""
    found = []
    for name, node in calls("api"):
        function = node.func
        is_read = isinstance(function, ast.Attribute) and function.attr in ("rows", "row")
        if not is_read or not ast.unparse(function.value).endswith("database") or not node.args:
            continue
        argument = node.args[0]
        if isinstance(argument, ast.Name):
            module = importlib.import_module(".".join(name.with_suffix("").parts))
            text = getattr(module, argument.id, "")
        else:
            text = ast.unparse(argument)
        if WRITES.search(str(text)):
            found.append((str(name), node.lineno))
    assert found == []


@pytest.mark.parametrize("room", ROOMS)
def test_connections_of_their_own_are_known(room):
    opened = {
        str(name)
        for name, node in calls(room)
        if ast.unparse(node.func) in ("connect", "database.connect", "psycopg.connect")
    }
    assert opened <= OWN_CONNECTIONS.keys()
