"""A flow works on a change only when queries see it."""

import threading
from collections.abc import Iterator

import psycopg
import pytest

from benchmarks.servers import postgres
from dataflows.effects import Performer
from fanline.settings import Settings
from readmodels.visibility import ALL_VISIBLE


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with postgres() as running:
        yield running


def connect(settings: Settings) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(settings.database_url.get_secret_value())


def transaction_of(connection: "psycopg.Connection[tuple[object, ...]]") -> int:
    found = connection.execute("SELECT pg_current_xact_id()::text::bigint & 4294967295").fetchone()
    assert found is not None
    return int(str(found[0]))


def all_visible(settings: Settings, *transactions: int) -> bool:
    with connect(settings) as connection:
        found = connection.execute(ALL_VISIBLE, {"transactions": list(transactions)}).fetchone()
    return found == (True,)


def test_a_transaction_is_visible_from_its_end_on(settings: Settings) -> None:
    with connect(settings) as one, connect(settings) as other:
        first, second = transaction_of(one), transaction_of(other)
        assert not all_visible(settings, first)
        other.commit()
        # The first is now among the running ones of a snapshot, no longer at its end.
        assert all_visible(settings, second)
        assert not all_visible(settings, first, second)
        one.rollback()
        assert all_visible(settings, first, second)


def test_a_transaction_that_the_snapshot_does_not_reach_is_not_visible(settings: Settings) -> None:
    with connect(settings) as connection:
        latest = transaction_of(connection)
    assert not all_visible(settings, latest + 1_000)


def test_a_flow_waits_for_its_batch(settings: Settings) -> None:
    performer = Performer(settings, "test")
    with connect(settings) as connection:
        transaction = transaction_of(connection)
        waiting = threading.Thread(target=performer.wait_until_visible, args=({transaction},))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        connection.commit()
    waiting.join(10)
    assert not waiting.is_alive()
    performer.close()
