"""Access tokens for the people as whom a tool calls the API: sessions made in bulk, signed as the API signs its own."""

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4, uuid5

import psycopg
from psycopg.rows import dict_row

from api.auth.keys import INSERT_KEY, SELECT_KEYS, key_ring, new_key
from api.auth.principal import Principal
from api.auth.tokens import sign
from fanline.database import run_transaction_on

SCOPES = frozenset(("read", "write", "follow"))
HOURS = 12
"""How long the tokens live: longer than any load or audit takes."""

_NAMESPACE = UUID("6f2b8a54-8f0e-5a3c-9d4e-3c1f5b7a9e21")
_APPLICATION = """
INSERT INTO applications (id, name, redirect_uris, scopes, client_id, client_secret_hash)
VALUES (%(id)s, %(name)s, %(redirect_uris)s, %(scopes)s, %(client_id)s, %(client_secret_hash)s)
ON CONFLICT (id) DO NOTHING
"""
# Keys that are long retired are of no use here, so that any number of days will do.
_KEY_DAYS = 1


@contextmanager
def admitted(
    connection: psycopg.Connection[Any], people: Sequence[UUID], application: str, issuer: str
) -> Iterator[dict[UUID, str]]:
    """Access tokens of `people` for the time of the block, by person.

    The sessions belong to an application of the given name and are gone after the block. `issuer` is the API's public
    URL. The connection must be in autocommit mode: the API has to see the sessions.
    """
    key_id, key = _signing_key(connection)
    application_id = _register(connection, application)
    now = datetime.now(UTC)
    expires_at = now + timedelta(hours=HOURS)
    expires_ms = int(expires_at.timestamp() * 1_000)
    principals = [Principal(uuid4(), application_id, person, SCOPES, expires_ms) for person in people]

    def admit(transaction: psycopg.Connection[Any]) -> None:
        columns = "(id, user_id, application_id, scopes, expires_at)"
        with transaction.cursor() as cursor, cursor.copy(f"COPY sessions {columns} FROM STDIN") as copy:
            for person in principals:
                scopes = " ".join(sorted(SCOPES))
                copy.write_row((person.session_id, person.user_id, application_id, scopes, expires_at))

    try:
        run_transaction_on(connection, admit)
        yield {person.user_id: sign(person, key_id, key, issuer, now) for person in principals if person.user_id}
    finally:
        sessions = [person.session_id for person in principals]
        run_transaction_on(connection, lambda one: one.execute("DELETE FROM sessions WHERE id = ANY(%s)", [sessions]))


def _signing_key(connection: psycopg.Connection[Any]) -> tuple[str, Any]:
    for _ in range(2):
        with connection.cursor(row_factory=dict_row) as cursor:
            ring = key_ring(cursor.execute(SELECT_KEYS, {"days": _KEY_DAYS}).fetchall())
        if ring.signing_id is not None:
            return ring.signing_id, ring.signing_key
        # The very first key of a new database: the API would make it just so.
        run_transaction_on(connection, lambda one: one.execute(INSERT_KEY, new_key()))
    raise AssertionError("unreachable: a key was just made")


def _register(connection: psycopg.Connection[Any], name: str) -> UUID:
    application_id = uuid5(_NAMESPACE, name)
    row = {
        "id": application_id,
        "name": name,
        "redirect_uris": ["urn:ietf:wg:oauth:2.0:oob"],
        "scopes": " ".join(sorted(SCOPES)),
        "client_id": application_id.hex,
        # Nobody knows the secret, so that nobody else can sign people in through this application.
        "client_secret_hash": hashlib.sha256(secrets.token_bytes(32)).hexdigest(),
    }
    run_transaction_on(connection, lambda one: one.execute(_APPLICATION, row))
    return application_id
