"""What a record of the heartbeats' topic vouches for."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.heartbeats import Heartbeats, microseconds
from fanline.errors import MalformedEvent
from fanline.settings import Settings

ROW = {"id": 1, "ts": "2026-11-22T13:24:50.435651Z"}
TIME_US = microseconds(datetime(2026, 11, 22, 13, 24, 50, 435651, UTC))
CAPTURED = ROW | {"__op": "u", "__deleted": "false", "__source_ts_ms": 1}


class Record:
    def __init__(self, value: bytes | None) -> None:
        self.value = lambda: value
        self.error = lambda: None


@pytest.fixture
def heartbeats(monkeypatch: pytest.MonkeyPatch) -> Heartbeats:
    made = Heartbeats(Settings(), "test")
    monkeypatch.setattr(made._decoder, "decode", lambda value: json.loads(value[1:]))
    return made


def time_of(heartbeats: Heartbeats, message: dict[str, Any], *, avro: bool) -> int | None:
    value = json.dumps(message).encode()
    return heartbeats._time_us(Record(b"\0" + value if avro else value))


def test_a_heartbeat_of_postgres_vouches_for_its_time(heartbeats: Heartbeats) -> None:
    captured = CAPTURED | {"__source_sequence": '["10","20"]', "__source_txId": 7}
    assert time_of(heartbeats, captured, avro=True) == TIME_US
    assert time_of(heartbeats, captured | {"__deleted": "true"}, avro=True) is None
    assert heartbeats._time_us(Record(None)) is None


def test_a_resolved_message_of_a_changefeed_vouches_for_its_time(heartbeats: Heartbeats) -> None:
    resolved = {"resolved": "1532379887442299001.0000000000"}
    assert time_of(heartbeats, resolved, avro=False) == 1_532_379_887_442_299
    assert time_of(heartbeats, {"payload": resolved, "schema": {}}, avro=False) == 1_532_379_887_442_299


def test_a_row_of_a_changefeed_vouches_for_nothing_as_others_may_come_after_it(heartbeats: Heartbeats) -> None:
    changed = {"after": ROW, "updated": "1532379887442299001.0000000000"}
    assert time_of(heartbeats, changed, avro=False) is None
    assert time_of(heartbeats, CAPTURED | {"__source_ts_hlc": "1532379887442299001.0000000000"}, avro=True) is None


def test_a_heartbeat_without_a_time_is_told(heartbeats: Heartbeats) -> None:
    with pytest.raises(MalformedEvent):
        time_of(heartbeats, {"resolved": "soon"}, avro=False)
