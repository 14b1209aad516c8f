"""Committed rows and events as they arrive in Kafka, through the real connectors."""

import json
import time
import uuid
from collections import defaultdict
from datetime import UTC, datetime

import pytest

from fanline import database
from fanline.changes import MORE_COLUMNS, row_change, table_of
from fanline.ids import TimeOrderedIds
from schemas.registry import encoder
from tests.integration.pipeline import decoder, open_pipeline, tail

TRACEPARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"
IDS = TimeOrderedIds()


@pytest.fixture(scope="module")
def settings(stack):
    open_pipeline(stack.settings)
    return stack.settings


@pytest.fixture
def connection(settings):
    with database.connect(settings, autocommit=True) as opened:
        yield opened


@pytest.fixture
def decode(settings):
    """Decoded changes, tombstones as (table, key, None)."""
    avro = decoder(settings)

    def decoded(message):
        table = table_of(message.topic())
        key = avro.decode(message.key())
        return table, key, None if message.value() is None else row_change(table, avro.decode(message.value()))

    return decoded


@pytest.fixture
def people(connection):
    """Two accounts, gone afterwards."""
    ids = [str(uuid.uuid4()) for _ in range(2)]
    for user in ids:
        connection.execute("INSERT INTO users (id, username) VALUES (%s, %s)", [user, f"cdc_{user[:8]}"])
    yield ids
    connection.execute("DELETE FROM users WHERE id = ANY(%s::uuid[])", [ids])


def of_key(records, decode, key):
    return [change for _, found, change in map(decode, records) if found == key]


def test_the_life_of_a_post_arrives_in_order_without_its_text(settings, connection, people, decode):
    post = IDS.next()
    with tail(settings, "cdc.posts") as posts:
        connection.execute(
            "INSERT INTO posts (id, author_id, text, spoiler_text) VALUES (%s, %s, 'private words', 'warning')",
            [post, people[0]],
        )
        connection.execute("UPDATE posts SET text = 'other words', edited_at = now() WHERE id = %s", [post])
        connection.execute("DELETE FROM posts WHERE id = %s", [post])
        records = posts.until(lambda seen: len(of_key(seen, decode, {"id": post})) == 4)
    created, updated, deleted, tombstone = of_key(records, decode, {"id": post})
    assert [created.op, updated.op, deleted.op, tombstone] == ["c", "u", "d", None]
    assert (0, 0) < created.position < updated.position < deleted.position
    for change in (created, updated, deleted):
        assert change.row["author_id"] == people[0]
        assert not {"text", "spoiler_text"} & change.row.keys()
        assert abs(change.source_ms - time.time() * 1000) < 60_000
    assert created.row["edited_at"] is None
    assert datetime.fromisoformat(updated.row["edited_at"]).tzinfo is UTC
    assert not any(b"words" in (each.value() or b"") for each in records)


@pytest.mark.parametrize(
    ("table", "columns"), [("follows", ("follower_id", "followee_id")), ("blocks", ("blocker_id", "blocked_id"))]
)
def test_an_edge_of_the_graph_arrives_and_its_delete_has_its_key_and_what_is_declared(
    settings, connection, people, decode, table, columns
):
    key = dict(zip(columns, people, strict=True))
    with tail(settings, f"cdc.{table}") as edges:
        connection.execute(f"INSERT INTO {table} ({columns[0]}, {columns[1]}) VALUES (%s, %s)", people)
        connection.execute(f"DELETE FROM {table} WHERE {columns[0]} = %s", [people[0]])
        records = edges.until(lambda seen: len(of_key(seen, decode, key)) == 3)
    created, deleted, tombstone = of_key(records, decode, key)
    assert (created.op, deleted.op, tombstone) == ("c", "d", None)
    assert created.row.items() >= key.items()
    assert deleted.row == {column: created.row[column] for column in (*key, *MORE_COLUMNS.get(table, ()))}


def test_a_mute_carries_its_end(settings, connection, people, decode):
    key = {"muter_id": people[0], "muted_id": people[1]}
    with tail(settings, "cdc.mutes") as mutes:
        connection.execute(
            "INSERT INTO mutes (muter_id, muted_id, expires_at) VALUES (%s, %s, '2030-01-02T03:04:05Z')", people
        )
        records = mutes.until(lambda seen: bool(of_key(seen, decode, key)))
    assert of_key(records, decode, key)[0].row["expires_at"] == "2030-01-02T03:04:05.000000Z"


def test_changes_of_transactions_that_overlap_never_go_back_inside_a_row(settings, people, decode):
    """The first to begin is the last to commit, and each change of the row still sorts after the one before."""
    post, other = IDS.next(), IDS.next()
    with (
        database.connect(settings) as early,
        database.connect(settings, autocommit=True) as late,
        tail(settings, "cdc.posts") as posts,
    ):
        early.execute("INSERT INTO posts (id, author_id) VALUES (%s, %s)", [other, people[0]])
        late.execute("INSERT INTO posts (id, author_id) VALUES (%s, %s)", [post, people[0]])
        late.execute("UPDATE posts SET sensitive = true WHERE id = %s", [post])
        early.execute("UPDATE posts SET language = 'en' WHERE id = %s", [post])
        early.commit()
        late.execute("UPDATE posts SET language = 'de' WHERE id = %s", [post])
        # The other post may be in another partition, which is read in its own time.
        records = posts.until(
            lambda seen: [len(of_key(seen, decode, {"id": each})) for each in (post, other)] == [4, 1]
        )
    changes = of_key(records, decode, {"id": post})
    assert [change.row["language"] for change in changes] == [None, None, "en", "de"]
    assert [change.position for change in changes] == sorted({change.position for change in changes})
    assert len(of_key(records, decode, {"id": other})) == 1


def test_changes_of_transactions_that_overlap_never_go_back_inside_a_partition(settings, people, decode):
    """Written first and committed last: such rows have smaller LSNs of their own, and still sort last."""
    early_posts, late_posts = ([IDS.next() for _ in range(24)] for _ in range(2))
    insert = "INSERT INTO posts (id, author_id) VALUES (%s, %s)"
    with (
        database.connect(settings) as early,
        database.connect(settings, autocommit=True) as late,
        tail(settings, "cdc.posts") as posts,
    ):
        for post in early_posts:
            early.execute(insert, [post, people[0]])
        for post in late_posts:
            late.execute(insert, [post, people[0]])
        early.commit()
        ours = {*early_posts, *late_posts}
        records = posts.until(lambda seen: ours <= {decode(each)[1]["id"] for each in seen})
    partitions = defaultdict(list)
    for record in records:
        _, key, change = decode(record)
        if key["id"] in ours:
            partitions[record.partition()].append((key["id"] in early_posts, change.position))
    assert len(partitions) > 1
    for changes in partitions.values():
        assert [position for _, position in changes] == sorted(position for _, position in changes)
        assert [is_early for is_early, _ in changes] == sorted(is_early for is_early, _ in changes)


def test_an_account_that_goes_takes_its_edges_with_it_in_the_log_too(settings, connection, people, decode):
    connection.execute("INSERT INTO follows (follower_id, followee_id) VALUES (%s, %s)", people)
    key = {"follower_id": people[0], "followee_id": people[1]}
    with tail(settings, "cdc.follows", "cdc.users") as log:
        connection.execute("DELETE FROM users WHERE id = %s", [people[1]])
        log.until(
            lambda seen: (
                any(change and change.op == "d" for change in of_key(seen, decode, key))
                and any(change and change.op == "d" for change in of_key(seen, decode, {"id": people[1]}))
            )
        )


def test_the_heartbeat_row_moves_every_second_by_itself(settings, decode):
    with tail(settings, "cdc.heartbeat") as heartbeats:
        records = heartbeats.until(lambda seen: len(of_key(seen, decode, {"id": 1})) >= 3, seconds=20)
    times = [datetime.fromisoformat(change.row["ts"]) for change in of_key(records, decode, {"id": 1}) if change]
    assert times == sorted(times)
    assert (times[-1] - times[0]).total_seconds() < 10


def test_a_signal_reads_existing_rows_again_as_snapshot_rows(settings, connection, people, decode):
    signal = json.dumps(
        {
            "data-collections": ["public.users"],
            "type": "incremental",
            "additional-conditions": [{"data-collection": "public.users", "filter": f"id = '{people[0]}'"}],
        }
    )
    key = {"id": people[0]}
    with tail(settings, "cdc.users") as users:
        connection.execute(
            "INSERT INTO signal (id, type, data) VALUES (%s, 'execute-snapshot', %s)", [uuid.uuid4().hex, signal]
        )
        records = users.until(lambda seen: any(c and c.op == "r" for c in of_key(seen, decode, key)))
    read = next(change for change in of_key(records, decode, key) if change.op == "r")
    assert read.position == (0, 0)
    assert read.row["username"] == f"cdc_{people[0][:8]}"


def outbox(connection, event, key, payload, traceparent):
    row = uuid.uuid4()
    connection.execute(
        "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, traceparent)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        [row, event, key, event, payload, traceparent],
    )
    return row


def test_an_event_arrives_byte_for_byte_with_its_trace(settings, connection):
    key = str(IDS.next())
    event = {"post_id": key, "author_id": str(uuid.uuid4()), "visibility": "public", "deleted_at": 1_795_353_890_435}
    payload = encoder(settings).encode("post.deleted", event)
    with tail(settings, "post.deleted") as events:
        row = outbox(connection, "post.deleted", key, payload, TRACEPARENT)
        records = events.until(lambda seen: any(each.key() == key.encode() for each in seen))
    message = next(each for each in records if each.key() == key.encode())
    assert message.value() == payload
    assert message.headers() == [
        ("id", str(row).encode()),
        ("type", b"post.deleted"),
        ("traceparent", TRACEPARENT.encode()),
    ]
    assert decoder(settings).decode(message.value())["post_id"] == key


def test_any_bytes_pass_through_the_outbox_untouched(settings, connection):
    key = str(IDS.next())
    payload = bytes(range(256)) * 40
    with tail(settings, "post.created") as events:
        outbox(connection, "post.created", key, payload, None)
        records = events.until(lambda seen: any(each.key() == key.encode() for each in seen))
    message = next(each for each in records if each.key() == key.encode())
    assert message.value() == payload
    assert dict(message.headers())["traceparent"] is None


def test_pruned_outbox_rows_are_no_news(settings, connection):
    # One key for all, as only records of one partition come in their order.
    key = str(IDS.next())
    with tail(settings, "post.created") as events:
        outbox(connection, "post.created", key, b"first", None)
        connection.execute("DELETE FROM outbox WHERE aggregateid = %s", [key])
        outbox(connection, "post.created", key, b"second", None)
        records = events.until(lambda seen: any(each.value() == b"second" for each in seen))
    assert [each.value() for each in records if each.key() == key.encode()] == [b"first", b"second"]


def test_the_event_slot_moves_on_while_no_event_is_written(settings, connection):
    """Otherwise a quiet outbox would keep the whole log of everything else on the database's disk."""
    (target,) = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
    deadline = time.monotonic() + 60
    behind = True
    while behind:
        assert time.monotonic() < deadline, "the slot did not move in 60 s"
        time.sleep(0.5)
        (behind,) = connection.execute(
            "SELECT confirmed_flush_lsn < %s::pg_lsn FROM pg_replication_slots WHERE slot_name = 'fanline_outbox'",
            [target],
        ).fetchone()
