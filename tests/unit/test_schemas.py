"""The contracts of the domain events: documented, exemplified, and never broken."""

import json
from dataclasses import replace

import pytest

from fanline.avro import AvroDecoder
from fanline.errors import ConfigurationError
from schemas import contracts
from schemas.compatibility import incompatibilities
from schemas.registry import EventEncoder

KNOWN = contracts.load()


def record(*fields, **more):
    return {"type": "record", "name": "R", "fields": list(fields), **more}


def field(name, kind, **more):
    return {"name": name, "type": kind, **more}


@pytest.mark.parametrize("name", KNOWN)
def test_every_contract_holds(name):
    assert contracts.faults(KNOWN[name]) == []


@pytest.mark.parametrize("name", KNOWN)
def test_every_example_survives_encoding_and_decoding(name):
    data = EventEncoder({name: 5}).encode(name, KNOWN[name].example)
    decoded = AvroDecoder({5: KNOWN[name].text}.get).decode(data)
    times = {key for key, value in decoded.items() if hasattr(value, "timestamp")}
    assert {key: value for key, value in decoded.items() if key not in times} == {
        key: value for key, value in KNOWN[name].example.items() if key not in times
    }
    for key in times:
        assert round(decoded[key].timestamp() * 1000) == KNOWN[name].example[key]


@pytest.mark.parametrize("name", KNOWN)
def test_identifiers_are_text_in_every_contract(name):
    for each in json.loads(KNOWN[name].text)["fields"]:
        if each["name"].endswith("_id"):
            assert each["type"] in ("string", ["null", "string"]), each["name"]


def test_the_emitted_events_have_contracts():
    assert {"post.created", "post.deleted"} <= KNOWN.keys()


@pytest.mark.parametrize(
    ("event", "says"),
    [({"visibility": "nobody"}, "visibility|nobody"), ({"post_id": 5}, "post_id"), ({"postid": "5"}, "postid")],
)
def test_an_event_that_does_not_fit_its_contract_is_refused_before_it_is_written(event, says):
    with pytest.raises(ValueError, match=says):
        EventEncoder({"post.created": 1}).encode("post.created", KNOWN["post.created"].example | event)


def test_an_event_without_its_optional_fields_gets_their_defaults():
    fields = ("post_id", "author_id", "text", "visibility", "created_at", "sensitive")
    event = {key: KNOWN["post.created"].example[key] for key in fields}
    data = EventEncoder({"post.created": 1}).encode("post.created", event)
    decoded = AvroDecoder({1: KNOWN["post.created"].text}.get).decode(data)
    assert (decoded["repost_of_id"], decoded["mentions"], decoded["spoiler_text"]) == (None, [], "")


def test_an_event_without_a_contract_is_refused():
    with pytest.raises(ValueError, match=r"no event post\.exploded"):
        EventEncoder({"post.created": 1}).encode("post.exploded", {})


@pytest.mark.parametrize(
    ("reader", "writer"),
    [
        (record(field("a", "long")), record(field("a", "int"))),
        (record(field("a", "string", default="x")), record()),
        (record(), record(field("a", "string"))),
        (record(field("a", ["null", "string"], default=None)), record(field("a", "string"))),
        (record(field("b", "string", aliases=["a"])), record(field("a", "string"))),
        (record(field("a", {"type": "array", "items": "long"})), record(field("a", {"type": "array", "items": "int"}))),
        ({"type": "enum", "name": "E", "symbols": ["a", "b"]}, {"type": "enum", "name": "E", "symbols": ["a"]}),
    ],
)
def test_a_change_that_reads_old_data_is_compatible(reader, writer):
    assert incompatibilities(reader, writer) == []


@pytest.mark.parametrize(
    ("reader", "writer", "says"),
    [
        (record(field("a", "int")), record(field("a", "long")), "a: long became int"),
        (record(field("a", "string")), record(), "a: a new field needs a default"),
        (record(field("a", "string")), record(field("a", ["null", "string"])), "a: null became string"),
        (record(field("b", "string")), record(field("a", "string")), "b: a new field"),
        (record(field("a", ["null", "long"])), record(field("a", "string")), "a: string is not in the new union"),
        (record(name="S") | {"name": "S"}, record(), "record R became S"),
        (
            {"type": "enum", "name": "E", "symbols": ["a"]},
            {"type": "enum", "name": "E", "symbols": ["a", "b"]},
            "the enum lost b",
        ),
        (
            record(field("t", {"type": "long", "logicalType": "timestamp-micros"})),
            record(field("t", {"type": "long", "logicalType": "timestamp-millis"})),
            "t: logical type timestamp-millis became timestamp-micros",
        ),
    ],
)
def test_a_change_that_cannot_read_old_data_is_named_by_its_field(reader, writer, says):
    assert any(says in fault for fault in incompatibilities(reader, writer))


def test_a_contract_must_read_every_version_not_only_the_last():
    first = record(field("a", "string", doc="x"), doc="x")
    second = record(field("a", "string", doc="x"), field("b", "int", doc="x", default=0), doc="x")
    third = record(field("a", "string", doc="x"), field("b", "int", doc="x"), doc="x")
    contract = contracts.Contract("e", json.dumps(third), {"a": "", "b": 1}, (json.dumps(first), json.dumps(second)))
    assert [fault for fault in contracts.faults(contract) if "version" in fault] == [
        "e: cannot read what version 1 wrote: b: a new field needs a default."
    ]


def test_a_changed_contract_must_be_released():
    changed = json.loads(KNOWN["post.deleted"].text)
    changed["fields"].append({"name": "note", "type": "string", "default": "", "doc": "New."})
    faults = contracts.faults(replace(KNOWN["post.deleted"], text=json.dumps(changed)))
    assert faults == ["post.deleted: the schema has changed and is not released: run fanline schemas release."]


def test_a_field_without_documentation_is_named():
    bare = json.loads(KNOWN["post.deleted"].text)
    del bare["fields"][0]["doc"]
    assert "post.deleted: field post_id has no doc." in contracts.faults(
        replace(KNOWN["post.deleted"], text=json.dumps(bare))
    )


def test_a_release_keeps_the_version_and_refuses_a_break(tmp_path):
    contract = contracts.Contract("e", json.dumps(record(field("a", "string", doc="x"), doc="x")), {"a": ""}, ())
    assert contracts.release(contract, tmp_path) == 1
    released = replace(contract, versions=((tmp_path / "versions/e.1.avsc").read_text(),))
    assert contracts.release(released, tmp_path) is None
    broken = replace(released, text=json.dumps(record(field("a", "int", doc="x"), doc="x")), example={"a": 1})
    with pytest.raises(ConfigurationError, match="a: string became int"):
        contracts.release(broken, tmp_path)


def test_a_contract_without_an_example_is_an_error(tmp_path):
    (tmp_path / "lonely.avsc").write_text("{}")
    with pytest.raises(ConfigurationError, match="lonely has no example"):
        contracts.load(tmp_path)
