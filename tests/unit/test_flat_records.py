import random
from datetime import UTC, datetime
from typing import Any

import pytest

from fanline import avro
from schemas import contracts
from schemas.flat_records import flat_writer, number
from schemas.registry import EventEncoder

CONTRACTS = contracts.load()
NAME = "notification.dispatched"
SCHEMA = avro.parse(CONTRACTS[NAME].text)
EVENT: dict[str, Any] = {
    "notification_id": "5", "account_id": "a", "type": "mention", "from_account_id": None, "post_id": "7",
    "created_at": 1_700_000_000_000, "group_key": "ungrouped-5",
}  # fmt: skip


def by_fastavro(event: dict[str, Any]) -> bytes:
    return avro.encode(1, SCHEMA, event)[avro.HEADER.size :]


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_an_example_of_every_contract_is_written_as_fastavro_writes_it(name: str) -> None:
    schema = avro.parse(CONTRACTS[name].text)
    write = flat_writer(schema)
    written = write(CONTRACTS[name].example) if write is not None else None
    assert written in (None, avro.encode(1, schema, CONTRACTS[name].example)[avro.HEADER.size :])


def test_notifications_are_written_without_fastavro_to_the_same_bytes() -> None:
    write, dice = flat_writer(SCHEMA), random.Random(5)
    assert write is not None
    for length in (0, 1, 63, 64, 127, 128, 8_191):
        texts = dict.fromkeys(("account_id", "from_account_id"), "ä" * (length // 2) + "x" * (length % 2))
        event = EVENT | texts | {"created_at": dice.randint(-(2**63), 2**63 - 1)}
        assert write(event) == by_fastavro(event)
    assert write(EVENT | {"group_key": None}) == by_fastavro(EVENT | {"group_key": None})


@pytest.mark.parametrize("value", [0, -1, 1, 63, -64, 64, -65, 2**31, -(2**31), 2**63 - 1, -(2**63)])
def test_a_number_is_written_as_fastavro_writes_it(value: int) -> None:
    assert number(value) == avro.encode(1, avro.parse('"long"'), value)[avro.HEADER.size :]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "event",
    [
        EVENT | {"created_at": datetime(2026, 11, 22, tzinfo=UTC)},
        EVENT | {"created_at": True},
        EVENT | {"account_id": "x" * 8_192},
        {name: value for name, value in EVENT.items() if name != "group_key"},
    ],
)
def test_what_it_is_not_certain_of_is_left_to_fastavro(event: dict[str, Any]) -> None:
    write = flat_writer(SCHEMA)
    assert write is not None
    assert write(event) is None
    assert EventEncoder({NAME: 1}).encode(NAME, event) == avro.encode(1, SCHEMA, event)


@pytest.mark.parametrize(
    "wrong", [{"account_id": 5}, {"account_id": None}, {"created_at": "now"}, {"created_at": 2**63}, {"post_id": 5}]
)
def test_what_does_not_fit_is_not_written(wrong: dict[str, Any]) -> None:
    write = flat_writer(SCHEMA)
    assert write is not None
    assert write(EVENT | wrong) is None
    with pytest.raises(ValueError, match=r"\w"):
        EventEncoder({NAME: 1}).encode(NAME, EVENT | wrong)


def test_a_record_with_fields_of_other_types_has_no_writer() -> None:
    assert flat_writer(avro.parse(CONTRACTS["engagement.recorded"].text)) is None
    assert flat_writer(avro.parse('"string"')) is None
