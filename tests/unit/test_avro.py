"""The Avro codec against bytes that are right, and bytes that are not."""

import json
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.avro import AvroDecoder, MalformedAvro, UnknownSchema, encode, parse
from fanline.errors import DependencyUnavailable, MalformedEvent

SCHEMA = json.dumps(
    {
        "type": "record",
        "name": "Value",
        "namespace": "fanline.public.follows",
        "fields": [
            {"name": "id", "type": "long"},
            {"name": "name", "type": {"type": "string", "connect.name": "io.debezium.data.Uuid", "connect.version": 1}},
            {"name": "languages", "type": ["null", {"type": "array", "items": ["null", "string"]}], "default": None},
            {"name": "flag", "type": {"type": "boolean", "connect.default": True}, "default": True},
        ],
    }
)
PARSED = parse(SCHEMA)
ROW = {"id": 1 << 60, "name": "Zoë 🚀", "languages": ["en", None], "flag": False}
GOOD = encode(7, PARSED, ROW)


@pytest.fixture
def decoder():
    return AvroDecoder({7: SCHEMA}.get)


def test_what_is_encoded_is_decoded_equal(decoder):
    assert GOOD[:5] == struct.pack(">bI", 0, 7)
    assert decoder.decode(GOOD) == ROW


def test_a_schema_is_fetched_once(decoder):
    fetched = []
    counting = AvroDecoder(lambda schema_id: fetched.append(schema_id) or SCHEMA)
    for _ in range(3):
        counting.decode(GOOD)
    assert fetched == [7]


def test_an_unknown_schema_id_is_named(decoder):
    with pytest.raises(UnknownSchema, match="no schema with id 99"):
        decoder.decode(struct.pack(">bI", 0, 99) + GOOD[5:])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "0 bytes"),
        (b"\x00\x00\x00", "3 bytes"),
        (b'{"id": 1}', "starts with byte 123"),
        (b"\xff" + GOOD[1:], "starts with byte 255"),
        (GOOD[:5], "does not fit"),
        (GOOD[:-1], "does not fit"),
        (GOOD + b"\x00", "1 bytes more"),
        (GOOD.replace("🚀".encode(), b"\xff\xfe\xfd\xfc"), "not valid UTF-8"),
        (GOOD[:5] + b"\xff" * 40, "does not fit"),
    ],
)
def test_malformed_bytes_are_told_apart(decoder, data, says):
    with pytest.raises(MalformedAvro, match=says):
        decoder.decode(data)


@given(st.binary(max_size=200))
def test_no_bytes_after_the_framing_do_more_than_be_malformed(body):
    with suppress(MalformedEvent):
        assert isinstance(AvroDecoder({7: SCHEMA}.get).decode(GOOD[:5] + body), dict)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_one_flipped_byte_is_decoded_or_malformed(place, byte):
    data = bytearray(GOOD)
    data[place] = byte
    with suppress(MalformedEvent):
        assert isinstance(AvroDecoder({7: SCHEMA}.get).decode(bytes(data)), dict)


def test_a_registry_that_is_down_is_no_fault_of_the_record():
    def down(schema_id):
        raise DependencyUnavailable("The schema registry does not answer.")

    with pytest.raises(DependencyUnavailable):
        AvroDecoder(down).decode(GOOD)


def test_a_registry_that_is_back_is_asked_again():
    answers = iter([DependencyUnavailable("down"), SCHEMA])

    def fetch(schema_id):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    decoder = AvroDecoder(fetch)
    with pytest.raises(DependencyUnavailable):
        decoder.decode(GOOD)
    assert decoder.decode(GOOD) == ROW


@pytest.mark.parametrize("text", ['{"type": "record"}', '"nonsense"', "[]x", "5"])
def test_a_registered_schema_that_is_none_makes_its_records_malformed(text):
    with pytest.raises(MalformedAvro, match="Schema 7"):
        AvroDecoder({7: text}.get).decode(GOOD)


def test_a_schema_that_is_no_record_makes_its_values_malformed():
    with pytest.raises(MalformedAvro, match="describes no record"):
        AvroDecoder({7: '"long"'}.get).decode(GOOD[:5] + b"\x02")


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({**ROW, "id": "x"}, "id"),
        ({"id": 1}, "name"),
        ({**ROW, "name": None}, "name"),
        ({**ROW, "nmae": "x"}, "nmae"),
        ({**ROW, "id": 1 << 70}, "too large"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_by_its_field(row, field):
    with pytest.raises(ValueError, match=field):
        encode(7, PARSED, row)
