"""Row changes out of Debezium's unwrapped rows."""

import pytest

from fanline.changes import KEY_COLUMNS, parse_sequence, row_change, table_of
from fanline.errors import MalformedEvent
from migrations.publications import CAPTURED


def record(**changes):
    meta = {"__op": "c", "__deleted": "false", "__source_sequence": '["7","9"]', "__source_ts_ms": 5}
    return {"follower_id": "a", "followee_id": "b", "show_reblogs": True, **meta, **changes}


@pytest.mark.parametrize("op", ["c", "u"])
def test_a_change_has_its_row_without_debeziums_fields(op):
    change = row_change("follows", record(__op=op))
    assert (change.table, change.op, change.position, change.source_ms) == ("follows", op, (7, 9), 5)
    assert change.row == {"follower_id": "a", "followee_id": "b", "show_reblogs": True}


def test_a_deleted_row_is_a_delete_whatever_its_operation_says():
    assert row_change("posts", record(__op="u", __deleted="true")).op == "d"


def test_a_delete_keeps_only_the_key_where_postgres_logs_only_the_key():
    assert row_change("follows", record(__op="d", __deleted="true")).row == {"follower_id": "a", "followee_id": "b"}


def test_a_deleted_post_keeps_its_whole_row():
    change = row_change("posts", record(__op="d", __deleted="true", id=1, author_id="u"))
    assert change.row["author_id"] == "u"


def test_every_captured_table_has_its_key_here_unless_its_deletes_are_whole_rows():
    assert set(KEY_COLUMNS) == set(CAPTURED) - {"posts", "notifications"}


def test_a_snapshot_row_is_older_than_every_change():
    change = row_change("follows", record(__op="r", __source_sequence='[null,"9"]'))
    assert (change.op, change.position) == ("r", (0, 0))


@pytest.mark.parametrize(
    ("sequence", "position"),
    [('["24023128","24023130"]', (24023128, 24023130)), ('[null,"5"]', (5, 5)), ('["1", "2"]', (1, 2))],
)
def test_positions_are_read_as_numbers(sequence, position):
    assert parse_sequence("posts", sequence) == position


@pytest.mark.parametrize("sequence", [None, "", "[]", '["x","1"]', '["1"]', '["1","2","3"]', 5, '["1",null]'])
def test_a_position_that_is_none_is_malformed(sequence):
    with pytest.raises(MalformedEvent, match="posts has no position"):
        parse_sequence("posts", sequence)


@pytest.mark.parametrize("field", ["__op", "__deleted", "__source_sequence", "__source_ts_ms"])
def test_a_missing_field_is_named(field):
    broken = record()
    del broken[field]
    with pytest.raises(MalformedEvent, match=f"lacks {field}"):
        row_change("follows", broken)


@pytest.mark.parametrize(
    "broken", [{"__op": "t"}, {"__op": None}, {"__source_ts_ms": None}, {"__op": ["c"]}, {"__source_ts_ms": "5"}]
)
def test_a_field_of_a_wrong_kind_is_malformed(broken):
    with pytest.raises(MalformedEvent):
        row_change("follows", record(**broken))


def test_a_delete_without_its_key_is_malformed():
    broken = record(__deleted="true")
    del broken["followee_id"]
    with pytest.raises(MalformedEvent, match="followee_id"):
        row_change("follows", broken)


def test_a_topic_of_row_changes_names_its_table():
    assert table_of("cdc.posts") == "posts"
    with pytest.raises(ValueError, match=r"post\.created"):
        table_of("post.created")
