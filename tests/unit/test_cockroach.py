"""CockroachDB's changes: the messages of its documentation, and of Debezium's connector, into one shape.

Fixtures: CockroachDB v25.2, "Changefeed Messages" and "Changefeed Message Envelope"; the field `source` as the
connector's CockroachDBSourceInfoStructMaker makes it.
"""

import json
import re
from dataclasses import replace

import pytest

from connectors import cockroach, connect, plan
from connectors.connect_client import ConnectClient
from connectors.decode import ChangeDecoder
from connectors.messages import Message, Replayed
from fanline import changes
from fanline.changes import KEY_COLUMNS, row_change
from fanline.cockroach import cockroach_change, parse_message
from fanline.errors import MalformedEvent
from fanline.settings import Settings
from migrations.publications import CAPTURED

PRODUCT = {
    "category": "Home & Kitchen",
    "created_at": "2025-04-30T20:02:35.40316",
    "description": "Ceramic mug with 350ml capacity",
    "id": "98879aa0-72bc-4b12-a128-325a4753162e",
    "in_stock": True,
    "name": "Coffee Mug",
    "price": 12.5,
}
FULL_FIDELITY = {
    "payload": {
        "after": PRODUCT,
        "before": PRODUCT,
        "key": {"id": "98879aa0-72bc-4b12-a128-325a4753162e"},
        "op": "u",
        "source": {
            "changefeed_sink": "kafka",
            "cluster_id": "585e6512-ea54-490a-8f1d-50c8d182a2e6",
            "cluster_name": "",
            "database_name": "test",
            "db_version": "v25.2.0-beta.2",
            "job_id": "1072079179268751361",
            "mvcc_timestamp": "1747243394200039000.0000000000",
            "node_id": "1",
            "node_name": "localhost",
            "origin": "cockroachdb",
            "primary_keys": ["id"],
            "schema_name": "public",
            "source_node_locality": "",
            "table_name": "products",
            "ts_hlc": "1747243394200039000.0000000000",
            "ts_ns": 1747243394200039000,
        },
        "ts_ns": 1747243394886231000,
    },
    "schema": {"fields": [], "name": "cockroachdb.envelope", "optional": False, "type": "struct"},
}
PLACE = (1747243394200039000, 0)


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    """The documentation's tables beside ours."""
    monkeypatch.setitem(changes.KEY_COLUMNS, "products", ("id",))
    monkeypatch.setitem(changes.KEY_COLUMNS, "employees", ("id",))
    monkeypatch.setitem(changes.KEY_COLUMNS, "office_dogs", ("id",))


def decoded(table, message, key=None):
    text = message if isinstance(message, str) else json.dumps(message)
    return cockroach_change(table, parse_message(table, text.encode()), key)


def test_a_full_fidelity_message_with_its_schema():
    change = decoded("products", FULL_FIDELITY)
    assert (change.table, change.op, change.position) == ("products", "u", PLACE)
    assert (change.row, change.source_ms, change.transaction) == (PRODUCT, 1747243394200, None)


def test_the_place_is_the_commit_and_never_when_the_changefeed_worked_on_it():
    message = FULL_FIDELITY["payload"] | {"source": {"ts_hlc": "5.0000000002", "ts_ns": 9}, "ts_ns": 11}
    assert decoded("products", message).position == (5, 2)
    assert decoded("products", {"after": PRODUCT, "op": "c", "ts_ns": 11, "updated": "7.0"}).position == (7, 0)


@pytest.mark.parametrize(
    ("text", "row", "position"),
    [
        (
            '{"after": {"id": 1, "name": "Terry", "office": "new york city"}, "key": [1], '
            '"updated": "1701102296662969433.0000000000"}',
            {"id": 1, "name": "Terry", "office": "new york city"},
            (1701102296662969433, 0),
        ),
        (
            '{"after": {"id": 1, "name": "Terri", "office": "new york city"}, "key": [1], '
            '"updated": "1701102311425045162.0000000000"}',
            {"id": 1, "name": "Terri", "office": "new york city"},
            (1701102311425045162, 0),
        ),
    ],
)
def test_wrapped_messages_of_the_documentation(text, row, position):
    change = decoded("employees", json.loads(text) | {"before": row})
    assert (change.op, change.row, change.position) == ("u", row, position)
    # As they stand there, without `diff`: an insert looks just so, and must not be taken for an update.
    with pytest.raises(MalformedEvent, match=r"employees does not tell whether the row is new: .* the option diff"):
        decoded("employees", text)


def test_an_enriched_update_without_the_row_before_it_may_be_an_insert_too():
    message = {"after": PRODUCT, "op": "u", "updated": "3.0"}
    with pytest.raises(MalformedEvent, match="the option diff"):
        decoded("products", message)
    assert decoded("products", message | {"before": None}).op == "u"
    assert decoded("products", message | {"op": "c"}).op == "c"


def test_wrapped_messages_with_diff_tell_inserts_from_updates():
    updated = {"updated": "1745416120981735000.0000000000"}
    assert decoded("products", {"after": PRODUCT, "before": None} | updated).op == "c"
    assert decoded("products", {"after": PRODUCT, "before": PRODUCT} | updated).op == "u"


def test_a_delete_of_the_documentation_has_its_key_in_the_record():
    change = decoded("employees", '{"after": null, "updated": "1.0000000000"}', b"[5]")
    assert (change.op, change.row) == ("d", {"id": 5})


@pytest.mark.parametrize(
    ("message", "key"),
    [
        ({"after": None, "op": "d", "key": {"id": 5}}, None),
        ({"after": None, "op": "d", "key": [5]}, None),
        ({"after": None, "op": "d"}, b'{"id": 5}'),
        ({"after": None, "op": "d"}, b'{"payload": {"id": 5}, "schema": {"type": "struct"}}'),
        ({"after": None, "op": "d", "before": {"id": 5, "name": "Ash", "office": "london"}}, None),
    ],
)
def test_a_delete_keeps_the_key_wherever_it_is(message, key):
    change = decoded("employees", message | {"updated": "3.0000000000"}, key)
    assert (change.op, change.row) == ("d", {"id": 5})


def test_the_bucket_of_a_hash_sharded_key_is_no_part_of_it():
    change = decoded("polls", {"after": None, "updated": "3.0"}, b"[11, 117661450563047623]")
    assert change.row == {"id": 117661450563047623}
    change = decoded("follows", {"after": None, "updated": "3.0"}, b'["a", "b"]')
    assert change.row == {"follower_id": "a", "followee_id": "b"}


def test_a_deleted_post_needs_the_row_before_it():
    row = {"id": 7, "author_id": "u", "repost_of_id": None}
    assert decoded("posts", {"after": None, "before": row, "updated": "3.0"}).row == row
    with pytest.raises(MalformedEvent, match="the option diff"):
        decoded("posts", {"after": None, "updated": "3.0"}, b"[7]")


@pytest.mark.parametrize(
    "message", [{"resolved": "1532379887442299001.0000000000"}, {"payload": {"resolved": "1.0"}, "schema": {}}]
)
def test_a_resolved_timestamp_is_no_row(message):
    assert decoded("posts", message) is None


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"after": PRODUCT, "op": "c", "ts_ns": 1743792394409866000}, "the option updated"),
        ({"after": PRODUCT, "op": "x", "updated": "1.0"}, "the unknown operation 'x'"),
        ({"after": PRODUCT, "updated": "soon"}, "has no place: 'soon'"),
        ({"after": [1], "op": "u", "updated": "1.0"}, "has no row"),
        ({"before": PRODUCT, "updated": "1.0"}, "no row after it"),
        ({"after": None, "op": "d", "updated": "1.0"}, "lacks its key id"),
    ],
)
def test_what_is_no_change_is_malformed(message, reason):
    with pytest.raises(MalformedEvent, match=reason):
        decoded("products", message)


@pytest.mark.parametrize("text", ["{", "[1]", "5"])
def test_what_is_no_json_object_is_malformed(text):
    with pytest.raises(MalformedEvent, match="no JSON"):
        decoded("products", text)


DEBEZIUM = {
    "before": None,
    "after": {"follower_id": "a", "followee_id": "b"},
    "source": {
        "version": "3.5.0.Final",
        "connector": "cockroachdb",
        "name": "fanline",
        "ts_ms": 1747243394200,
        "snapshot": "false",
        "db": "fanline",
        "sequence": None,
        "ts_us": 1747243394200039,
        "ts_ns": 1747243394200039000,
        "schema": "public",
        "table": "follows",
        "cluster": "",
        "resolved_ts": None,
        "ts_hlc": "1747243394200039000.0000000003",
    },
    "op": "c",
    "ts_ms": 1747243394990,
}


def test_debeziums_envelope():
    change = decoded("follows", {"schema": {}, "payload": DEBEZIUM})
    assert (change.op, change.row) == ("c", {"follower_id": "a", "followee_id": "b"})
    assert (change.position, change.source_ms) == ((1747243394200039000, 3), 1747243394200)


def test_debeziums_unwrapped_row_has_the_same_shape():
    meta = {"__op": "c", "__deleted": "false", "__source_ts_ms": 1747243394200}
    record = DEBEZIUM["after"] | meta | {"__source_ts_hlc": "1747243394200039000.0000000003"}
    assert row_change("follows", record) == decoded("follows", DEBEZIUM)


def test_a_row_of_an_initial_scan_keeps_its_place():
    change = decoded("follows", DEBEZIUM | {"op": "r"})
    assert (change.op, change.position) == ("r", (1747243394200039000, 3))


def test_the_documented_changefeed_has_every_table_that_flows_read():
    page = (plan.TEMPLATES.parents[1] / "docs/operations/cockroachdb.md").read_text()
    [tables] = re.findall(r"CREATE CHANGEFEED FOR TABLE ([^;]*?)\nINTO", page)
    assert [name.strip() for name in tables.split(",")] == [*CAPTURED, "outbox"]


def test_every_captured_table_can_be_deleted_from():
    for table, columns in KEY_COLUMNS.items():
        key = json.dumps(list(range(len(columns)))).encode()
        assert decoded(table, {"after": None, "updated": "1.0"}, key).row == dict(zip(columns, range(9), strict=False))


class Accepting:
    """Dead letters of a test that wants none."""

    def __init__(self):
        self.brake = self

    def accepted(self, records=1):
        pass


def test_flows_take_both_kinds_of_messages_and_pass_over_resolved_timestamps():
    decoder = ChangeDecoder(lambda value: pytest.fail("not Avro"), Accepting())
    texts = [json.dumps(DEBEZIUM), '{"resolved": "1.0"}', '{"after": null, "updated": "2.0"}']
    records = [Message("cdc.follows", 0, n, b'["a", "b"]', text.encode(), (), 0) for n, text in enumerate(texts)]
    assert [(item.change.op, item.message.offset) for item in decoder(records)] == [("c", 0), ("d", 2)]


class Keeping(Accepting):
    """Dead letters that say what was rejected."""

    def __init__(self):
        super().__init__()
        self.rejected = []

    def reject(self, message, reason):
        self.rejected.append((message.offset, str(reason)))

    def flush(self):
        pass


def test_a_row_that_may_be_new_is_a_dead_letter_and_comes_back_as_it_is_by_then():
    row = {"user_id": "a", "post_id": 1}

    def present(change):
        return replace(change, op="r", position=(0, 0))

    letters = Keeping()
    decoder = ChangeDecoder(lambda value: pytest.fail("not Avro"), letters, present=present)
    texts = [json.dumps({"after": row, "updated": "1.0"}), json.dumps({"after": row, "before": None, "updated": "1.0"})]
    records = [Message("cdc.likes", 0, n, b'["a", 1]', text.encode(), (), 0) for n, text in enumerate(texts)]
    assert [(item.change.op, item.message.offset) for item in decoder(records)] == [("c", 1)]
    assert [offset for offset, _ in letters.rejected] == [0]
    assert "the option diff" in letters.rejected[0][1]

    back = Replayed(*records[0])
    assert [(item.change.op, item.change.row) for item in decoder([back])] == [("r", row)]
    assert len(letters.rejected) == 1


COCKROACH = Settings(database_dialect="cockroach", connect_database_url="postgresql://cdc:pw@crdb:26257/social")


def test_the_dialect_decides_which_connectors_run():
    assert set(connect.wanted(COCKROACH)) == {"fanline-cdc-cockroach"}
    assert "fanline-cdc" in connect.wanted(Settings())


def test_the_template_has_no_fault_and_captures_what_postgres_template_does():
    config = connect.wanted(COCKROACH)["fanline-cdc-cockroach"]
    assert cockroach.faults(config) == {}
    postgres = connect.wanted(Settings())["fanline-cdc"]
    for key in ("table.include.list", "column.exclude.list", "topic.prefix", "transforms.route.replacement"):
        assert config[key] == postgres[key]
    assert (config["database.hostname"], config["database.port"]) == ("crdb", "26257")
    assert config["transforms.unwrap.add.fields"] == "op,source.ts_hlc,source.ts_ms"


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        ({"database.hostname": ""}, "database.hostname", "missing"),
        ({"cockroachdb.changefeed.envelope": "wrapped"}, "cockroachdb.changefeed.envelope", "not one of enriched"),
        ({"snapshot.mode": "sometimes"}, "snapshot.mode", "not one of"),
        ({"cockroachdb.changefeed.sink.type": "webhook"}, "cockroachdb.changefeed.sink.type", "not one of kafka"),
        ({"cockroachdb.changefeed.include.diff": "false"}, "cockroachdb.changefeed.include.diff", "not one of true"),
        ({"table.exclude.list": "public.x"}, "table.exclude.list", "exclude each other"),
        ({"topic.prefix": "no spaces"}, "topic.prefix", "letters"),
        ({"cockroachdb.changefeed.sink.uri": "http://x"}, "cockroachdb.changefeed.sink.uri", "kafka://host:port"),
        ({"cockroachdb.changefeed.resolved.interval": "often"}, "cockroachdb.changefeed.resolved.interval", "10s"),
        ({"cockroachdb.changefeed.enveloppe": "x"}, "cockroachdb.changefeed.enveloppe", "no setting"),
    ],
)
def test_faults_that_kafka_connect_does_not_see_are_named_by_us(change, key, says):
    config = connect.wanted(COCKROACH)["fanline-cdc-cockroach"] | change
    found = cockroach.faults(config)
    assert list(found) == [key]
    assert says in found[key][0]
    assert ConnectClient("http://127.0.0.1:1").validate("x", config) == found
