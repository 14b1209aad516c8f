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

WRITES = re.compile(r"\b(INSERT INTO|UPDATE \w+ (\w+ )?SET|DELETE FROM|(ALTER|DROP|CREATE) TABLE)\b")

# Who opens connections, not by `run_transaction`, `SqlTransactions` or `Performer`, and why.
OWN_CONNECTIONS = {
    "api/cli.py": "reads",
    "fanline/redis_connection.py": "connects to Redis",
    "audit/stores.py": "reads",
    "connectors/cli_lag.py": "reads",
    "connectors/pipeline.py": "reads",
    "connectors/present.py": "reads",
    "connectors/renewal.py": "slots, outside of any transaction",
    "connectors/replica.py": "reads, and alters the database and its publications",
    "dataflows/effects.py": "`Performer` runs every query again (connectors/waiting.py: TRANSIENT)",
    "dataflows/search_cli.py": "reads",
    "fanline/cli_load.py": "loads a graph once; begun again by hand",
    "fanline/cli_demo.py": "loads a graph once; begun again by hand",
    "fanline/database.py": "is where the retries are",
    "fanline/migrations_runner.py": "one migration at a time, under a lock",
    "fanline/pruning.py": "a batch at a time, by `run_transaction_on`",
    "sinks/sql.py": "is where the flows' retries are",
}
# Where statements that write may stand outside of a transaction that is run again, and why.
ONCE = {
    "demo/people.py": "loads a graph once, into tables that nobody else writes; begun again by hand",
    "fanline/migrations_runner.py": "one migration at a time, under a lock",
}
RETRYING = ("run_transaction", "run_transaction_alone", "run_transaction_on")
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


def written(call: ast.Call, module: str, inside: ast.AST) -> bool:
    """Whether a call runs a statement that writes: a text, a constant of a module, or a name of the function's own."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in ("execute", "executemany", "copy"):
        return False
    if not call.args:
        return False
    argument = call.args[0]
    texts = [ast.unparse(argument)]
    names = [node for node in ast.walk(argument) if isinstance(node, ast.Name | ast.Attribute)]
    for name in names:
        found = importlib.import_module(module)
        for part in ast.unparse(name).split("."):
            found = getattr(found, part, None)
        texts.append(str(found))
    own = {name.id for name in names if isinstance(name, ast.Name)}
    for node in ast.walk(inside):
        if isinstance(node, ast.Assign) and own & {each.id for each in node.targets if isinstance(each, ast.Name)}:
            texts.append(ast.unparse(node.value))
    return any(WRITES.search(text) or re.search(r"\bCOPY \w+ ?[^']*FROM STDIN", text) for text in texts)


def writes_outside(tree: ast.Module, module: str) -> list[int]:
    """The lines of statements that write, and that no function runs which one of `RETRYING` is given."""
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    given = [
        argument
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in RETRYING
        for argument in node.args
    ]
    inside, todo = set(), list(given)
    while todo:
        node = todo.pop()
        if node in inside:
            continue
        inside.add(node)
        # What is given, and the functions that it names or calls.
        for each in ast.walk(node):
            inside.add(each)
            if isinstance(each, ast.Name) and each.id in functions:
                todo.append(functions[each.id])
    outer = {node: scope for scope in [tree, *functions.values()] for node in ast.walk(scope)}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and node not in inside and written(node, module, outer[node])
    ]


def test_who_writes_without_being_run_again_is_found():
    text = """
def once(connection):
    connection.execute("DELETE FROM likes")
def again(settings):
    run_transaction_alone(settings, _body)
    run_transaction_on(settings, lambda one: one.execute("UPDATE posts SET text = ''"))
def _body(connection):
    connection.execute("INSERT INTO likes VALUES (1)")
    _more(connection)
def _more(connection):
    statement = f"DELETE FROM {connection} WHERE true"
    connection.execute(statement)
def built(connection):
    statement = f"DELETE FROM {connection} WHERE true"
    connection.execute(statement.encode())
"""
    assert writes_outside(ast.parse(text), "ast") == [3, 15]


@pytest.mark.parametrize("room", [*(room for room in ROOMS if room != "api"), "api/cli.py"])
def test_every_statement_that_writes_is_run_again(room):
    found = []
    for path in [ROOT / room] if room.endswith(".py") else sorted((ROOT / room).rglob("*.py")):
        name = path.relative_to(ROOT)
        if str(name) not in ONCE:
            lines = writes_outside(ast.parse(path.read_text(encoding="utf-8")), ".".join(name.with_suffix("").parts))
            found += [(str(name), line) for line in lines]
    assert found == []
