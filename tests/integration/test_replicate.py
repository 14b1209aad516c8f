"""A move from one database to another and back, while people write: two databases of one Postgres."""

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from connectors import connect as kafka_connect
from connectors import renewal, replica
from fanline.database import connect, open_pool, run_transaction
from fanline.errors import BarrierTimeout, ConfigurationError, DependencyUnavailable, FanlineError
from fanline.migrations_runner import migrate
from fanline.replica import route
from fanline.settings import Settings
from tests.conftest import CHECKOUT, Stack
from tests.integration.contract.valkey import wait_until


class Move:
    """Two migrated databases of their own, and the processes that copy between them."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.names = [f"move_{side}_{uuid.uuid4().hex[:8]}" for side in ("old", "new")]
        self.processes: list[subprocess.Popen[str]] = []
        host, port = stack.settings.host, stack.settings.postgres_port
        self.urls = [f"postgresql://fanline@{host}:{port}/{name}" for name in self.names]
        self.environment = stack.environment | {
            "FANLINE_DATABASE_URL": self.urls[0],
            "FANLINE_REPLICA_DATABASE_URL": self.urls[1],
            "FANLINE_STATE_DIR": str(folder / "state"),
        }
        self.settings = stack.settings.model_copy(
            update=Settings(database_url=self.urls[0], replica_database_url=self.urls[1]).model_dump(
                include={"database_url", "replica_database_url"}
            )
        )
        self.forward, self.back = route(self.settings, "forward"), route(self.settings, "back")
        for name in self.names:
            self.admin(sql.SQL("CREATE DATABASE {} OWNER fanline").format(sql.Identifier(name)))
        for side in (self.forward.source, self.forward.target):
            migrate(side)

    def admin(self, statement: sql.Composable) -> None:
        settings = self.stack.settings
        with psycopg.connect(
            host=settings.host, port=settings.postgres_port, user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement)

    def fanline(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "fanline.cli", "replicate", *arguments],
            env=self.environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def run(self, *arguments: str) -> "subprocess.Popen[str]":
        with (self.folder / f"run-{len(self.processes)}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "fanline.cli", "replicate", "run", *arguments],
                env=self.environment, cwd=CHECKOUT, stdout=log, stderr=log, text=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def rows(self, side: int, query: str) -> list[Any]:
        with psycopg.connect(self.urls[side], autocommit=True) as connection:
            return connection.execute(query).fetchall()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for each in (self.forward, self.back):
            replica.stop(each, self.settings)
        for name in self.names:
            self.admin(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def move(migrated: Stack, tmp_path: Path) -> Iterator[Move]:
    made = Move(migrated, tmp_path)
    try:
        yield made
    finally:
        made.close()


def person(connection: Any) -> uuid.UUID:
    """Somebody with rows of every type of column: texts, JSON, arrays, bytes, times, references."""
    user, post = uuid.uuid4(), uuid.uuid4().int >> 66
    name = f"p{user.hex[:12]}"
    connection.execute(
        "INSERT INTO users (id, username, note, fields) VALUES (%s, %s, %s, %s)",
        (user, name, "é “quoted” \\ \n x" * 3, json.dumps([{"name": "a", "value": "b\u2028"}])),
    )
    connection.execute(
        "INSERT INTO posts (id, author_id, text, language) VALUES (%s, %s, %s, 'en')", (post, user, "long " * 3000)
    )
    connection.execute(
        "INSERT INTO post_edits (post_id, created_at, text, spoiler_text, sensitive, media_ids)"
        " VALUES (%s, now(), 't', '', false, %s)",
        (post, [uuid.uuid4(), uuid.uuid4()]),
    )
    connection.execute("INSERT INTO likes (user_id, post_id) VALUES (%s, %s)", (user, post))
    connection.execute("INSERT INTO signing_keys (kid, algorithm, private_key) VALUES (%s, 'EdDSA', %s)", (name, "key"))
    return user


@pytest.mark.timeout(600)
def test_a_database_moves_under_load_and_back_and_nothing_is_lost(move: Move) -> None:
    with psycopg.connect(move.urls[0]) as connection:
        people = [person(connection) for _ in range(60)]
    assert "tables are copied" in move.fanline("start")
    # A second start changes nothing.
    assert "tables are copied" in move.fanline("start")
    first = move.run()

    # People write while the snapshot is copied: new rows, changes that leave a large text alone, deletes and cascades.
    stopped, written = threading.Event(), []

    def write() -> None:
        with psycopg.connect(move.urls[0], autocommit=True) as writer:
            while not stopped.wait(0.02):
                written.append(person(writer))
                number = len(written)
                writer.execute("UPDATE posts SET sensitive = true WHERE author_id = %s", (people[number % 60],))
                # As the outbox's connector does now and then: a message of the log, which belongs to no table.
                writer.execute("SELECT pg_logical_emit_message(false, 'fanline_outbox', '')")
                if number % 7 == 0:
                    writer.execute("DELETE FROM users WHERE id = %s", (written[number // 2],))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        wait_until(lambda: len(move.rows(1, "SELECT id FROM users")) > 40, "rows arrive", 60)
        # A crash in the middle.
        first.kill()
        first.wait()
        second = move.run()
        wait_until(lambda: len(written) > 60, "people write", 60)
    finally:
        stopped.set()
        thread.join()

    # A row that differs is found, and nothing is switched.
    wait_until(lambda: "0 behind" in move.fanline("status"), "the copy catches up", 60)
    with psycopg.connect(move.urls[1], autocommit=True) as connection:
        connection.execute("UPDATE users SET note = 'other' WHERE id = %s", (people[3],))
    assert "users:" in move.fanline("verify", code=1)
    assert "The databases differ in users; nothing is switched." in move.fanline("cutover", code=1)
    with psycopg.connect(move.urls[0], autocommit=True) as connection:
        # The source takes writes again; this one mends the row.
        connection.execute("UPDATE users SET note = note || '!' WHERE id = %s", (people[3],))

    told = move.fanline("cutover")
    assert "are equal" in told
    assert "No connector of the pipeline reads the database" in told
    assert "FANLINE_DATABASE_URL" in told
    assert second.poll() is None
    everybody = "SELECT id, note FROM users ORDER BY id"
    assert move.rows(0, everybody) == move.rows(1, everybody)
    assert len(move.rows(1, "SELECT 1 FROM pg_constraint WHERE contype = 'f'")) > 40

    # Nobody can write to the old database, and the API says so in one sentence.
    with (
        open_pool(move.settings.model_copy(update={"database_url": move.settings.database_url})) as pool,
        pytest.raises(DependencyUnavailable, match="takes no writes"),
    ):
        run_transaction(pool, person)

    # Now the new one is written to, and the old one follows. Nothing brings back what is copied there.
    assert "another process holds" in move.fanline("back", code=2)
    second.terminate()
    assert second.wait(30) == 0
    move.fanline("back")
    slots = "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()"
    assert (move.rows(0, slots), move.rows(1, slots)) == ([], [("fanline_replica_back",)])
    move.run("--back")
    with psycopg.connect(move.urls[1]) as connection:
        after = person(connection)
    wait_until(lambda: [(after,)] == move.rows(0, f"SELECT id FROM users WHERE id = '{after}'"), "it comes back", 60)
    assert "rows in" in move.fanline("verify", "--back")


@pytest.mark.timeout(300)
def test_a_start_after_a_stop_copies_everything_again_and_never_over_a_database_that_was_switched_to(
    move: Move,
) -> None:
    with psycopg.connect(move.urls[0]) as connection:
        people = [person(connection) for _ in range(10)]
    everybody = "SELECT id, note FROM users ORDER BY id"
    move.fanline("start")
    running = move.run()
    wait_until(lambda: move.rows(0, everybody) == move.rows(1, everybody), "the copy is made", 60)
    assert "another process holds" in move.fanline("stop", code=2)
    running.terminate()
    assert running.wait(30) == 0
    move.fanline("stop")

    # Nobody copies this: fewer records than the old topic had, one row less, one more, one that only the copy has.
    with psycopg.connect(move.urls[0]) as connection:
        connection.execute("DELETE FROM users WHERE id = ANY(%s)", (people[2:],))
        person(connection)
    with psycopg.connect(move.urls[1]) as connection:
        person(connection)
    move.fanline("start")
    move.run()
    wait_until(lambda: move.rows(0, everybody) == move.rows(1, everybody), "everything is copied again", 60)
    assert "are equal" in move.fanline("cutover")

    for process in move.processes:
        process.kill()
        process.wait()
    move.fanline("stop")
    assert "not empty" in move.fanline("start", code=2)
    assert move.rows(1, "SELECT 1 FROM replica_constraints") == []
    assert move.rows(0, everybody) == move.rows(1, everybody)


def test_a_switch_waits_for_the_pipeline_and_says_who_is_behind(system: Stack) -> None:
    assert renewal.drain(system.settings, 60)
    system.fanline("connectors", "pause", "fanline-outbox")
    try:
        with pytest.raises(FanlineError, match="slot fanline_outbox has not sent everything"):
            renewal.drain(system.settings, 10)
    finally:
        system.fanline("connectors", "resume", "fanline-outbox")
    system.fanline("dataflows", "stop", "followers")
    try:
        somebody = uuid.uuid4()
        with connect(system.settings) as connection:
            connection.execute("INSERT INTO users (id, username) VALUES (%s, %s)", (somebody, f"d{somebody.hex[:12]}"))
        with pytest.raises(BarrierTimeout, match="fanline-followers lacks"):
            renewal.drain(system.settings, 30)
    finally:
        system.fanline("dataflows", "start", "followers")
    assert renewal.drain(system.settings, 60)


def test_a_database_that_is_not_empty_or_of_another_schema_is_refused(move: Move) -> None:
    with psycopg.connect(move.urls[1]) as connection:
        person(connection)
    with pytest.raises(ConfigurationError, match=r"not empty: .*posts.* have rows"):
        replica.start(move.forward, move.settings, snapshot=True)
    with connect(move.forward.target) as connection:
        connection.execute("ALTER TABLE users DROP COLUMN note")
    with pytest.raises(ConfigurationError, match=r"different tables: users\. Run fanline migrate"):
        replica.start(move.forward, move.settings, snapshot=True)
    with kafka_connect.client(move.settings) as client:
        assert client.config("fanline-replica-forward") is None
