"""What is over goes, what is not stays, on a real Postgres."""

import uuid

import pytest

from fanline import database, pruning
from fanline.migrations_runner import migrate

OLD, NEW = "now() - INTERVAL '25 hours'", "now() - INTERVAL '59 minutes'"


@pytest.fixture
def connection(stack):
    migrate(stack.settings)
    with database.connect(stack.settings, autocommit=True) as opened:
        yield opened


@pytest.fixture
def user(connection):
    found = uuid.uuid4()
    connection.execute("INSERT INTO users (id, username) VALUES (%s, %s)", [found, f"p_{found.hex[:8]}"])
    yield found
    connection.execute("DELETE FROM users WHERE id = %s", [found])


def test_old_idempotency_keys_go_and_those_of_the_last_hour_stay(stack, connection, user):
    for key, when in (("old", OLD), ("new", NEW)):
        connection.execute(
            f"INSERT INTO idempotency_keys (user_id, key, created_at) VALUES (%s, %s, {when})", [user, key]
        )
    pruning.prune(stack.settings)
    left = connection.execute("SELECT key FROM idempotency_keys WHERE user_id = %s", [user]).fetchall()
    assert left == [("new",)]


def test_events_of_yesterday_go_and_todays_stay_in_however_many_batches(stack, connection, monkeypatch):
    monkeypatch.setattr(pruning, "BATCH", 3)
    key = uuid.uuid4().hex
    insert = "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, created_at) SELECT gen_random_uuid(),"
    connection.execute(f"{insert} 'post.deleted', %s, 'old', '', {OLD} FROM generate_series(1, 10)", [key])
    connection.execute(f"{insert} 'post.deleted', %s, 'new', '', {NEW}", [key])
    assert pruning.prune(stack.settings)["outbox"] >= 10
    assert connection.execute("SELECT type FROM outbox WHERE aggregateid = %s", [key]).fetchall() == [("new",)]
    assert pruning.prune(stack.settings)["outbox"] == 0


def test_every_table_of_the_list_exists_and_can_be_pruned_twice(stack, connection):
    pruning.prune(stack.settings)
    assert pruning.prune(stack.settings).keys() == pruning.EXPIRED.keys()
