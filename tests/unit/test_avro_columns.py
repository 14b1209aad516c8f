"""Avro decoded a column at a time gives what a decoder of single records gives, and finds what does not fit."""

import io
import json

import pyarrow as pa
import pytest
from fastavro import schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from fanline import avro
from fanline.avro_columns import UnsupportedSchema, arrow_schema, decode
from schemas import contracts

RECORD = {
    "type": "record",
    "name": "Everything",
    "fields": [
        {"name": "flag", "type": "boolean"},
        {"name": "small", "type": "int"},
        {"name": "large", "type": "long"},
        {"name": "single", "type": "float"},
        {"name": "double", "type": "double"},
        {"name": "text", "type": "string"},
        {"name": "raw", "type": "bytes"},
        {"name": "maybe", "type": ["null", "string"]},
        {"name": "number", "type": ["long", "null"]},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["a", "b", "c"]}},
        {"name": "again", "type": "Kind"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "nested", "type": {"type": "array", "items": {"type": "array", "items": "long"}}},
        {
            "name": "part",
            "type": ["null", {"type": "record", "name": "Part", "fields": [{"name": "x", "type": ["null", "int"]}]}],
        },
    ],
}
SCHEMA = avro.parse(json.dumps(RECORD))

texts = st.text(max_size=40)
longs = st.integers(-(2**63), 2**63 - 1)
records = st.fixed_dictionaries(
    {
        "flag": st.booleans(),
        "small": st.integers(-(2**31), 2**31 - 1),
        "large": longs,
        "single": st.floats(width=32, allow_nan=False),
        "double": st.floats(allow_nan=False),
        "text": texts,
        "raw": st.binary(max_size=40),
        "maybe": st.none() | texts,
        "number": st.none() | longs,
        "kind": st.sampled_from("abc"),
        "again": st.sampled_from("abc"),
        "tags": st.lists(texts, max_size=4),
        "nested": st.lists(st.lists(longs, max_size=3), max_size=3),
        "part": st.none() | st.fixed_dictionaries({"x": st.none() | st.integers(0, 9)}),
    }
)


def written(record, schema=SCHEMA) -> bytes:
    body = io.BytesIO()
    schemaless_writer(body, schema, record)
    return body.getvalue()


@settings(max_examples=60, deadline=None)
@given(st.lists(records, max_size=8))
def test_records_come_out_as_they_went_in(rows):
    batch, bad = decode(SCHEMA, [written(row) for row in rows])
    assert not bad.any()
    assert batch.to_pylist() == rows


@settings(max_examples=60, deadline=None)
@given(st.lists(records, min_size=1, max_size=5), st.data())
def test_a_broken_record_is_found_and_leaves_the_others_as_they_are(rows, data):
    values = [written(row) for row in rows]
    broken = data.draw(st.integers(0, len(rows) - 1))
    values[broken] = data.draw(
        st.sampled_from([values[broken][:-1], values[broken] + b"\0", b"", b"\xff" * 12]) | st.binary(max_size=20)
    )
    batch, bad = decode(SCHEMA, values)
    assert [row for at, row in enumerate(batch.to_pylist()) if at != broken] == rows[:broken] + rows[broken + 1 :]
    decoder = avro.AvroDecoder(lambda _: json.dumps(RECORD))
    try:
        expected = decoder.decode(b"\0\0\0\0\1" + values[broken])
    except avro.MalformedAvro:
        assert bad[broken]
    else:
        assert bad[broken] or batch.to_pylist()[broken] == expected
    assert bad.sum() == bad[broken]


@pytest.mark.parametrize("name", sorted(contracts.load()))
def test_every_contract_can_be_archived(name):
    contract = contracts.load()[name]
    schema = avro.parse(contract.text)
    value = avro.encode(7, schema, contract.example)
    batch, bad = decode(schema, [value] * 3, avro.HEADER.pack(0, 7))
    assert not bad.any()
    assert batch.to_pylist() == [avro.AvroDecoder(lambda _: contract.text).decode(value)] * 3


def test_a_text_that_is_not_utf8_is_a_broken_record():
    schema = {"type": "record", "name": "T", "fields": [{"name": "text", "type": "string"}]}
    batch, bad = decode(schema, [b"\x04ok", b"\x04\xc3\x28", b"\x04no"])
    assert bad.tolist() == [False, True, False]
    assert batch["text"].to_pylist() == ["ok", None, "no"]


def test_a_value_with_another_framing_is_a_broken_record():
    schema = {"type": "record", "name": "T", "fields": [{"name": "text", "type": "string"}]}
    batch, bad = decode(schema, [b"ab\x04ok", b"ax\x04no", b"a", b"", b"ab\x04ok"], b"ab")
    assert bad.tolist() == [False, True, True, True, False]
    assert [batch["text"][row].as_py() for row in (0, 4)] == ["ok", "ok"]


def test_no_records_are_an_empty_batch():
    batch, bad = decode(SCHEMA, [])
    assert (batch.num_rows, len(bad)) == (0, 0)


@pytest.mark.parametrize("kind", [{"type": "map", "values": "long"}, ["null", "long", "string"], ["string", "long"]])
def test_a_type_that_is_not_supported_is_named(kind):
    schema = {"type": "record", "name": "T", "fields": [{"name": "x", "type": kind}]}
    with pytest.raises(UnsupportedSchema):
        arrow_schema(schema)


def test_times_keep_their_unit_and_zone():
    schema = {
        "type": "record",
        "name": "T",
        "fields": [{"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}],
    }
    assert arrow_schema(schema).field("at").type == pa.timestamp("ms", "UTC")
