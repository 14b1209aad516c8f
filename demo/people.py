"""Puts a graph's people and follows into the database by bulk copy.

A person's id comes from the set's name and the person's name in the graph, so that loading a graph again adds what is
new and leaves the rest. People cannot sign in: their password is a random one that nobody is told.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

import psycopg

from api.auth.passwords import hash_password
from demo.graph import Graph
from fanline.errors import ConfigurationError

NAME_OF_A_SET = re.compile(r"[a-z0-9_]{1,16}")

_NAMESPACE = UUID("0f6f1f0e-4f4e-5b61-a1de-1f5d0c6f8b1a")
# None begins with an underscore: `<set>__<number>` is for people whose names cannot be used.
_USABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")
_MAX_USERNAME = 30
# Rows in one transaction: large enough to be quick, small enough for the change log to be read meanwhile.
_BATCH = 20_000

_NEW_USERS = """
INSERT INTO users (id, username, display_name)
SELECT id, username, display_name FROM loaded_people ON CONFLICT (id) DO NOTHING
"""
_NEW_IDENTITIES = """
INSERT INTO identities (user_id, email, password_hash, confirmed_at)
SELECT id, username || '@load.invalid', %s, now() FROM loaded_people ON CONFLICT (user_id) DO NOTHING
"""
_NEW_FOLLOWS = """
INSERT INTO follows (follower_id, followee_id)
SELECT follower_id, followee_id FROM loaded_follows ON CONFLICT (follower_id, followee_id) DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What loading a graph came to."""

    ids: list[UUID]
    """The person's id for each number in the graph."""
    usernames: list[str]
    new_people: int
    new_follows: int


def load_graph(
    connection: psycopg.Connection[Any],
    graph: Graph,
    name: str,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Loaded:
    """Load the graph as the set `name`; `progress` is told what is copied, how many are done, and of how many.

    The connection must be in autocommit mode. Raises `ConfigurationError` when the name cannot be part of a username
    or somebody else has one of the usernames.
    """
    if not NAME_OF_A_SET.fullmatch(name):
        raise ConfigurationError(f"The name {name!r} must be 1 to 16 lower-case letters, digits and underscores.")
    ids = [uuid5(_NAMESPACE, f"{name}/{person}") for person in graph.names]
    usernames = _usernames(graph.names, name)
    password = hash_password(secrets.token_urlsafe(32))
    people = 0
    for start in range(0, len(ids), _BATCH):
        end = min(start + _BATCH, len(ids))
        rows = [(ids[number], usernames[number], graph.names[number][:100]) for number in range(start, end)]
        try:
            with connection.transaction():
                _copy(connection, "loaded_people", "id uuid, username text, display_name text", rows)
                people += connection.execute(_NEW_USERS).rowcount
                connection.execute(_NEW_IDENTITIES, [password])
        except psycopg.errors.UniqueViolation as error:
            raise ConfigurationError(
                f"Somebody else has a username that begins with {name}_: choose another name for this set."
            ) from error
        progress("people", end, len(ids))
    follows = 0
    for start in range(0, len(graph.follows), _BATCH):
        part = graph.follows[start : start + _BATCH]
        with connection.transaction():
            pairs = ((ids[follower], ids[followee]) for follower, followee in part)
            _copy(connection, "loaded_follows", "follower_id uuid, followee_id uuid", pairs)
            follows += connection.execute(_NEW_FOLLOWS).rowcount
        progress("follows", start + len(part), len(graph.follows))
    # Without statistics the planner takes the new tables for empty and walks them whole.
    connection.execute("ANALYZE users, identities, follows, posts")
    return Loaded(ids, usernames, people, follows)


def _copy(connection: psycopg.Connection[Any], table: str, columns: str, rows: Iterable[Sequence[object]]) -> None:
    connection.execute(f"CREATE TEMPORARY TABLE {table} ({columns}) ON COMMIT DROP")
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def _usernames(names: Sequence[str], prefix: str) -> list[str]:
    """Names that the API allows: the graph's own where they can be used, else the person's number."""
    usernames: dict[str, None] = {}
    for number, name in enumerate(names):
        username = f"{prefix}_{name}"
        if not _USABLE_NAME.fullmatch(name) or len(username) > _MAX_USERNAME or username.lower() in usernames:
            username = f"{prefix}__{number}"
        usernames[username.lower()] = None
    return list(usernames)
