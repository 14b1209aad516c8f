"""A row that a rejected change named, asked of the database, is what Debezium captures of it; nothing is left when it
is gone."""

import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from connectors.present import PresentRows
from fanline import database
from fanline.changes import RowChange, deleted_row, row_change, table_of
from fanline.errors import MalformedEvent
from fanline.ids import TimeOrderedIds
from fanline.settings import Settings
from migrations.publications import CAPTURED
from tests.conftest import Stack
from tests.integration.pipeline import decoder, open_pipeline, tail

IDS = TimeOrderedIds()
FOLLOW = "INSERT INTO follows (follower_id, followee_id, languages) VALUES (%(a)s, %(b)s, ARRAY['de', 'en'])"
ROWS = (
    "INSERT INTO users (id, username, display_name, fields) "
    'VALUES (%(a)s, %(name_a)s, \'Ä\', \'[{"name": "ü", "value": "1"}]\')',
    "INSERT INTO users (id, username, locked) VALUES (%(b)s, %(name_b)s, true)",
    "INSERT INTO posts (id, author_id, text, spoiler_text, edited_at) VALUES (%(post)s, %(a)s, 'x', 'y', now())",
    FOLLOW,
    "INSERT INTO follow_requests (follower_id, followee_id) VALUES (%(b)s, %(a)s)",
    "INSERT INTO blocks (blocker_id, blocked_id, created_at) VALUES (%(a)s, %(b)s, '2026-01-02 03:04:05.1200+02')",
    "INSERT INTO mutes (muter_id, muted_id, expires_at) VALUES (%(a)s, %(b)s, '2030-01-01')",
    "INSERT INTO media (id, owner_id, post_id, kind, content_type, storage_key, byte_size, meta) "
    "VALUES (%(media)s, %(a)s, %(post)s, 'image', 'image/png', %(media)s::text, 7, '{\"w\": 2, \"h\": [1, 2]}')",
    "INSERT INTO likes (user_id, post_id) VALUES (%(b)s, %(post)s)",
    "INSERT INTO bookmarks (user_id, post_id) VALUES (%(b)s, %(post)s)",
    "INSERT INTO pins (user_id, post_id) VALUES (%(a)s, %(post)s)",
    "INSERT INTO conversation_mutes (user_id, post_id) VALUES (%(a)s, %(post)s)",
    "INSERT INTO polls (id, post_id, expires_at) VALUES (%(post)s, %(post)s, now() + interval '1 day')",
    "INSERT INTO poll_options (poll_id, position, title) VALUES (%(post)s, 0, 'yes')",
    "INSERT INTO poll_votes (poll_id, voter_id, position) VALUES (%(post)s, %(b)s, 0)",
    "INSERT INTO notifications (id, user_id, type) VALUES (%(post)s, %(a)s, 'moderation_warning')",
    "INSERT INTO markers (user_id, timeline, last_read_id) VALUES (%(a)s, 'home', %(post)s)",
    "INSERT INTO filters (id, user_id, title, contexts) VALUES (%(media)s, %(a)s, 'f', ARRAY['home'])",
)
TABLES = frozenset(CAPTURED) - {"heartbeat", "signal"}


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Settings:
    open_pipeline(stack.settings)
    return stack.settings


@pytest.fixture(scope="module")
def captured(settings: Settings) -> Iterator[dict[str, RowChange]]:
    """A change of a row in every captured table, by table, as the connector has sent it; the rows are still there."""
    a, b = uuid.uuid4(), uuid.uuid4()
    names = {"name_a": f"now_{a.hex[:10]}", "name_b": f"now_{b.hex[:10]}"}
    parameters: dict[str, Any] = {"a": a, "b": b, "post": IDS.next(), "media": uuid.uuid4(), **names}
    avro = decoder(settings)
    found: dict[str, RowChange] = {}
    with (
        database.connect(settings, autocommit=True) as connection,
        tail(settings, *(f"cdc.{table}" for table in sorted(TABLES))) as changes,
    ):
        for statement in ROWS:
            connection.execute(statement.encode(), parameters)
        mine = {str(value) for value in parameters.values()}

        def all_seen(records: list[Any]) -> bool:
            for record in records:
                if record.value() is not None:
                    table = table_of(record.topic())
                    change = row_change(table, avro.decode(record.value()))
                    if mine & {str(value) for value in change.row.values()}:
                        found[table] = change
            return found.keys() == TABLES

        changes.until(all_seen)
        yield found
        connection.execute("DELETE FROM users WHERE id = ANY(%s)", [[a, b]])


@pytest.fixture
def present(settings: Settings) -> Iterator[PresentRows]:
    with closing(PresentRows(settings)) as made:
        yield made


def test_the_present_row_of_every_table_is_what_was_captured_of_it(
    present: PresentRows, captured: dict[str, RowChange]
) -> None:
    for table, change in captured.items():
        now = present(change)
        assert (now.op, now.position, now.transaction) == ("r", (0, 0), None), table
        assert now.row == change.row, table


def test_a_row_that_is_gone_is_a_delete_that_tells_what_deletes_tell(
    settings: Settings, present: PresentRows, captured: dict[str, RowChange]
) -> None:
    change = captured["follows"]
    key = {column: change.row[column] for column in ("follower_id", "followee_id")}
    with database.connect(settings, autocommit=True) as connection:
        connection.execute("DELETE FROM follows WHERE (follower_id, followee_id) = (%s, %s)", list(key.values()))
        gone = present(change)
        assert (gone.op, gone.position) == ("d", (0, 0))
        assert gone.row == deleted_row("follows", change.row)
        assert key.items() <= gone.row.items()
        # And a delete that comes back after the row has returned is no delete.
        a, b = key.values()
        connection.execute(FOLLOW.encode(), {"a": a, "b": b})
        back = present(RowChange("follows", "d", gone.row, (7, 7), 0, 9))
        assert back.op == "r"
        assert back.row["languages"] == ["de", "en"]


@pytest.mark.parametrize(("table", "row"), [("follows", {}), ("posts", {"id": "no number"}), ("nothing", {"id": 1})])
def test_a_change_whose_row_cannot_be_looked_for_is_malformed(
    present: PresentRows, table: str, row: dict[str, Any]
) -> None:
    with pytest.raises(MalformedEvent, match="no key to look for"):
        present(RowChange(table, "c", row, (1, 1), 0))


def test_a_lost_connection_is_replaced(present: PresentRows, captured: dict[str, RowChange]) -> None:
    present(captured["posts"])
    assert isinstance(present._connection, psycopg.Connection)
    present._connection.close()
    assert present(captured["posts"]).op == "r"
