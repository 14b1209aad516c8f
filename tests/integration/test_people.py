"""Bulk loading and tokens made by SQL, on the real database."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import jwt
import psycopg
import pytest
from psycopg.rows import dict_row

from api.auth.keys import ALGORITHM, SELECT_KEYS, key_ring
from audit.visitors import admitted
from demo.graph import Graph, parse_edges
from demo.people import load_graph
from fanline import database
from fanline.errors import ConfigurationError
from fanline.migrations_runner import migrate
from tests.conftest import Stack


@pytest.fixture(scope="module")
def connection(stack: Stack) -> Iterator[psycopg.Connection[Any]]:
    migrate(stack.settings)
    with database.connect(stack.settings, autocommit=True) as connection:
        yield connection


@pytest.fixture
def name(connection: psycopg.Connection[Any]) -> Iterator[str]:
    name = f"t{uuid4().hex[:10]}"
    yield name
    connection.execute("DELETE FROM users WHERE username LIKE %s", [f"{name}\\_%"])


def usernames(connection: psycopg.Connection[Any], ids: list[UUID]) -> list[str]:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("SELECT id, username FROM users WHERE id = ANY(%s)", [ids]).fetchall()
    by_id = {row["id"]: row["username"] for row in rows}
    return [by_id[identifier] for identifier in ids]


def test_a_graph_becomes_people_who_follow_and_cannot_sign_in(connection: psycopg.Connection[Any], name: str) -> None:
    loaded = load_graph(connection, parse_edges([b"ada bob", b"bob ada", b"zo\xc3\xab ada"], "x"), name)
    assert (loaded.new_people, loaded.new_follows) == (3, 3)
    assert usernames(connection, loaded.ids) == [f"{name}_ada", f"{name}_bob", f"{name}__2"]
    ada, bob, zoe = loaded.ids
    follows = connection.execute(
        "SELECT follower_id, followee_id FROM follows WHERE follower_id = ANY(%s)", [loaded.ids]
    ).fetchall()
    assert set(follows) == {(ada, bob), (bob, ada), (zoe, ada)}
    identities = connection.execute(
        "SELECT count(*), count(DISTINCT password_hash) FROM identities WHERE user_id = ANY(%s)", [loaded.ids]
    ).fetchone()
    assert identities == (3, 1)


def test_a_graph_that_is_loaded_again_adds_only_what_is_new(connection: psycopg.Connection[Any], name: str) -> None:
    first = load_graph(connection, Graph(["a", "b"], [(0, 1)]), name)
    again = load_graph(connection, Graph(["a", "b", "c"], [(0, 1), (2, 0)]), name)
    assert (again.new_people, again.new_follows) == (1, 1)
    assert again.ids[:2] == first.ids


def test_people_whose_names_meet_in_upper_and_lower_case_are_told_apart(
    connection: psycopg.Connection[Any], name: str
) -> None:
    loaded = load_graph(connection, Graph(["Ada", "ada", "x" * 40], [(0, 1), (1, 2)]), name)
    assert usernames(connection, loaded.ids) == [f"{name}_ada", f"{name}__1", f"{name}__2"]


def test_somebody_elses_username_is_not_taken(connection: psycopg.Connection[Any], name: str) -> None:
    connection.execute("INSERT INTO users (id, username) VALUES (%s, %s)", [uuid4(), f"{name}_A"])
    with pytest.raises(ConfigurationError, match="choose another name for this set"):
        load_graph(connection, Graph(["a", "b"], [(0, 1)]), name)


@pytest.mark.parametrize("bad", ["", "Has-Dash", "x" * 17])
def test_a_name_that_cannot_begin_a_username_is_refused(connection: psycopg.Connection[Any], bad: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 16 lower-case letters"):
        load_graph(connection, Graph(["a", "b"], [(0, 1)]), bad)


def test_progress_is_told_to_the_end(connection: psycopg.Connection[Any], name: str) -> None:
    told: list[tuple[str, int, int]] = []
    load_graph(connection, Graph(["a", "b"], [(0, 1)]), name, lambda *report: told.append(report))
    assert told == [("people", 2, 2), ("follows", 1, 1)]


def test_visitors_have_tokens_that_the_api_accepts_and_sessions_that_end_with_the_block(
    connection: psycopg.Connection[Any], name: str
) -> None:
    loaded = load_graph(connection, Graph(["a", "b"], [(0, 1)]), name)
    with admitted(connection, loaded.ids, "Fanline test", "http://fanline.example") as tokens:
        with connection.cursor(row_factory=dict_row) as cursor:
            ring = key_ring(cursor.execute(SELECT_KEYS, {"days": 1}).fetchall())
        for person in loaded.ids:
            key = ring.public[jwt.get_unverified_header(tokens[person])["kid"]]
            claims = jwt.decode(tokens[person], key, [ALGORITHM], issuer="http://fanline.example")
            assert claims["sub"] == str(person)
            session = connection.execute("SELECT user_id FROM sessions WHERE id = %s", [claims["sid"]]).fetchone()
            assert session == (person,)
    left = connection.execute("SELECT count(*) FROM sessions WHERE user_id = ANY(%s)", [loaded.ids]).fetchone()
    assert left == (0,)
