"""CockroachDB's changefeed of the outbox, as the events that Debezium's EventRouter would make of it."""

import json
from typing import Any

import pytest

from connectors.flows import FLOWS, flows_of, metrics_port
from connectors.kafka_sink import KafkaRecord
from connectors.messages import Message, Progress
from connectors.outbox import OutboxDecoder
from tests.unit.letters import Letters

EVENT = "0198f0a2-0000-7000-8000-00000000000a"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ROW = {
    "aggregateid": "117661450563047623",
    "aggregatetype": "post.created",
    "created_at": "2025-04-30T20:02:35.40316Z",
    "id": EVENT,
    "payload": "\\x000000000502ff",
    "traceparent": TRACE,
    "type": "post.created",
}
# The envelopes of CockroachDB's "Changefeed Messages" and "Changefeed Message Envelope" (v25.2) around such a row.
ENRICHED = {
    "after": ROW,
    "key": {"id": EVENT},
    "op": "c",
    "source": {"table_name": "outbox", "ts_hlc": "1747243394200039000.0000000000", "ts_ns": 1747243394200039000},
    "ts_ns": 1747243394886231000,
}
WRAPPED = {"after": ROW, "key": [EVENT], "updated": "1747243394200039000.0000000000"}
EXPECTED = KafkaRecord(
    "post.created",
    b"117661450563047623",
    b"\x00\x00\x00\x00\x05\x02\xff",
    (("id", EVENT.encode()), ("type", b"post.created"), ("traceparent", TRACE.encode())),
    1747243394200,
)
PROGRESS = Progress("cdc.outbox", 0, 1)


def decoded(message: Any) -> tuple[list[Any], list[str]]:
    value = message if isinstance(message, bytes) else json.dumps(message).encode()
    letters = Letters()
    record = Message("cdc.outbox", 0, 0, json.dumps([EVENT]).encode(), value, (), 0)
    made = OutboxDecoder(letters)([record, PROGRESS])  # type: ignore[arg-type]
    assert made[-1] == PROGRESS
    return made[:-1], [reason for _, reason in letters.found]


@pytest.mark.parametrize(
    "message",
    [ENRICHED, {"payload": ENRICHED, "schema": {"type": "struct"}}, WRAPPED, WRAPPED | {"before": None}],
    ids=["enriched", "enriched with its schema", "wrapped", "wrapped with diff"],
)
def test_a_row_becomes_the_event_that_debezium_would_make(message: dict[str, Any]) -> None:
    assert decoded(message) == ([EXPECTED], [])


def test_an_event_without_a_trace_has_an_empty_header_for_it() -> None:
    [event], _ = decoded(WRAPPED | {"after": ROW | {"traceparent": None}})
    assert event.headers[-1] == ("traceparent", None)


@pytest.mark.parametrize(
    "message",
    [
        {"resolved": "1747243394200039000.0000000000"},
        {"after": None, "updated": "1747243394200039000.0000000000"},
        {"after": None, "before": ROW, "op": "d", "source": {"ts_hlc": "1747243394200039000.0000000000"}},
    ],
    ids=["resolved", "expired, wrapped", "expired, enriched"],
)
def test_what_tells_of_no_event_is_dropped(message: dict[str, Any]) -> None:
    assert decoded(message) == ([], [])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"payload": "AAAAAAUC/w=="}, "no hexadecimal text"),
        ({"payload": "\\x0g"}, "non-hexadecimal"),
        ({"payload": None}, "NoneType"),
        ({"aggregatetype": "post.invented"}, "there is no event 'post.invented'"),
        ({"id": "7"}, "badly formed"),
        ({"aggregateid": 7}, "int"),
    ],
)
def test_a_row_that_cannot_be_an_event_becomes_a_dead_letter(row: dict[str, Any], reason: str) -> None:
    made, reasons = decoded(WRAPPED | {"after": ROW | row})
    assert made == []
    assert reason in reasons[0]


@pytest.mark.parametrize("message", [b"{", b"[]", {"payload": {}}, {"after": ROW}])
def test_what_is_no_message_of_a_changefeed_becomes_a_dead_letter(message: Any) -> None:
    made, reasons = decoded(message)
    assert (made, len(reasons)) == ([], 1)


def test_the_flow_runs_on_cockroachdb_alone_behind_the_ports_of_the_others() -> None:
    assert flows_of("postgres") == FLOWS
    assert set(flows_of("cockroach")) - set(FLOWS) == {"outbox"}
    assert metrics_port(100, "outbox") == 100 + len(FLOWS)
