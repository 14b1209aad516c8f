"""What a change of one database becomes in the other, without either."""

import json

import pytest

from connectors.messages import Message
from fanline.errors import ConfigurationError, MalformedEvent
from fanline.replica import route
from fanline.settings import Settings
from sinks.replica import MOVE, POSITION, UNCHANGED, Table, apply
from sinks.replica_verify import checksum

LIKES = Table("likes", {"user_id": "uuid", "post_id": "int8", "tags": "_text", "raw": "bytea"}, ("user_id", "post_id"))
KNOWN = {"likes": LIKES, "replica_positions": Table("replica_positions", {"topic": "text"}, ("topic",))}


def message(offset, row, op="c", lsn=(5, 7), deleted="false"):
    meta = {
        "__op": op, "__deleted": deleted, "__source_table": "likes",
        "__source_sequence": json.dumps([None if each is None else str(each) for each in lsn]),
    }  # fmt: skip
    key = {"user_id": "u", "post_id": 9}
    return Message("t", 0, offset, json.dumps(key).encode(), json.dumps(row | meta).encode(), (), 0)


def applied(messages, books=()):
    """The statements that are run, and the place at the end."""
    effects = apply(messages, KNOWN)
    run, answer = [], None
    while True:
        try:
            query = effects.send(answer)
        except StopIteration as end:
            return run, end.value
        answer = list(books) if query.sql == POSITION else []
        run.append((query.sql, query.parameters))


ROW = {"user_id": "u", "post_id": 9, "tags": ["a"], "raw": "AAE="}
UPSERT = (
    'INSERT INTO "likes" ("user_id", "post_id", "tags", "raw") VALUES (%(user_id)s::uuid, %(post_id)s::int8, '
    '%(tags)s::text[], decode(%(raw)s, \'base64\')) ON CONFLICT ("user_id", "post_id") DO UPDATE SET '
    '"tags" = %(tags)s::text[], "raw" = decode(%(raw)s, \'base64\')'
)


def test_a_row_is_written_whatever_is_there_and_the_place_moves_with_it():
    run, count = applied([message(3, ROW)])
    assert run[1] == (UPSERT, ROW)
    place = {"next_offset": 4, "commit_lsn": 5, "lsn": 7, "snapshot_lsn": 0}
    assert run[2] == (MOVE, {"topic": "t", "partition": 0} | place)
    assert (len(run), count) == (3, 1)


def test_a_row_that_is_gone_is_deleted_by_its_key():
    run, _ = applied([message(3, {"user_id": "u", "post_id": 9, "tags": None, "raw": None}, "d", deleted="true")])
    assert run[1] == (
        'DELETE FROM "likes" WHERE "user_id" = %(user_id)s::uuid AND "post_id" = %(post_id)s::int8',
        {"user_id": "u", "post_id": 9},
    )


def test_a_large_value_that_was_not_touched_stays_as_it_is():
    run, _ = applied([message(3, ROW | {"raw": UNCHANGED}, "u")])
    assert run[1][0].startswith('UPDATE "likes" SET "tags" = %(tags)s::text[] WHERE "user_id" =')
    assert "raw" not in run[1][1]


def test_what_a_crash_repeats_is_left_out():
    books = [{"next_offset": 4, "commit_lsn": 5, "lsn": 7, "snapshot_lsn": 3}]
    run, count = applied([message(2, ROW), message(3, ROW), message(4, ROW, lsn=(6, 8))], books)
    assert (len(run), count) == (3, 1)
    assert run[-1][1]["next_offset"] == 5


def test_what_debezium_sends_again_is_known_by_its_place_in_the_log():
    books = [{"next_offset": 4, "commit_lsn": 5, "lsn": 7, "snapshot_lsn": 3}]
    run, count = applied([message(4, ROW, lsn=(5, 6)), message(5, ROW, lsn=(4, 99))], books)
    assert (len(run), count) == (2, 0)
    place = {"next_offset": 6, "commit_lsn": 5, "lsn": 7, "snapshot_lsn": 3}
    assert run[-1][1] == {"topic": "t", "partition": 0} | place


def test_a_snapshot_that_begins_anew_empties_what_an_interrupted_one_has_left():
    rows = [message(8, ROW, "r", (None, 4)), message(9, ROW, "r", (None, 4))]
    run, _ = applied(rows)
    assert [sql for sql, _ in run if sql.startswith("DELETE")] == ['DELETE FROM "likes"']
    assert run[1][0] == 'DELETE FROM "likes"'
    assert run[-1][1] == {"topic": "t", "partition": 0, "next_offset": 10, "commit_lsn": 0, "lsn": 0, "snapshot_lsn": 4}
    # The next batch of the same snapshot empties nothing; another snapshot does.
    books = [{"next_offset": 8, "commit_lsn": 0, "lsn": 0, "snapshot_lsn": 4}]
    assert [sql for sql, _ in applied(rows, books)[0] if sql.startswith("DELETE")] == []
    run, _ = applied([*rows, message(10, ROW, "r", (None, 6))], books)
    assert [sql for sql, _ in run if sql.startswith("DELETE")] == ['DELETE FROM "likes"']


@pytest.mark.parametrize(
    "broken", [message(1, ROW | {"other": 1}), message(1, ROW)._replace(value=b"{"), message(1, ROW)._replace(key=b"")]
)
def test_what_cannot_be_applied_stops_the_copying(broken):
    with pytest.raises(MalformedEvent, match="offset 1 of t cannot be applied"):
        applied([broken])


def test_a_checksum_knows_rows_and_not_their_order():
    assert checksum([(1, "a"), (2, None)]) == checksum([(2, None), (1, "a")])
    assert checksum([(1, "a")]) != checksum([(1, "b")])
    assert checksum([]) != checksum([(None,)])


def test_the_way_back_is_the_same_move_with_its_ends_changed():
    settings = Settings(
        database_url="postgresql://fanline@old:5432/a",
        replica_database_url="postgresql://fanline@new:26257/b",
        replica_connect_role="reader:secret",
    )
    forward, back = route(settings, "forward"), route(settings, "back")
    assert forward.source.database_url == back.target.database_url
    assert "host=new" in back.connect_url
    assert "user=reader password=secret" in back.connect_url or "password=secret" in back.connect_url
    assert "default_transaction_read_only=off" in forward.target.database_url.get_secret_value()
    assert forward.changes != back.changes
    with pytest.raises(ConfigurationError, match="FANLINE_REPLICA_DATABASE_URL is not set"):
        route(Settings(), "forward")
