"""Domain events out of CockroachDB's changefeed of the outbox, as Debezium's EventRouter makes them on Postgres.

A changefeed writes BYTES into JSON as hexadecimal text, `\\x00...` (Debezium's CockroachDB connector reads that only
since its issue 2310, in a version later than the one that is used here). Row-level TTL deletes rows, which is no event.
Rows of a changefeed may come again and, as each has a key of its own, in another order than that of their commits: an
event's header `id` tells a repetition, and no flow relies on the order of events (docs/guide/notifications.md).
"""

from typing import Any
from uuid import UUID

from connectors.dead_letter import DeadLetters
from connectors.flows import EVENTS
from connectors.kafka_sink import KafkaRecord
from connectors.messages import UNUSABLE, Message
from connectors.record_decoder import RecordDecoder
from fanline.cockroach import cockroach_change, parse_message
from fanline.errors import MalformedEvent

TABLE = "outbox"
_HEX = "\\x"


class OutboxDecoder(RecordDecoder):
    """Turns messages of the outbox's changefeed into records for the topics of their events."""

    def __init__(self, dead_letters: DeadLetters) -> None:
        super().__init__(dead_letters)

    def item(self, message: Message, value: bytes) -> KafkaRecord | None:
        """The event in a message; None for a row that is gone and for a resolved timestamp."""
        found = parse_message(TABLE, value)
        if "after" in found and found["after"] is None:
            return None
        # Rows of the outbox never change: whether one is new need not be told.
        change = cockroach_change(TABLE, found, message.key, late=True)
        if change is None:
            return None
        try:
            return event_record(change.row, change.source_ms)
        except UNUSABLE as error:
            raise MalformedEvent(f"The row of {TABLE} cannot be used: {error!r}.") from error

    def wait(self) -> None:
        """Nothing: flows wait for an event's row themselves."""


def event_record(row: dict[str, Any], committed_ms: int) -> KafkaRecord:
    """The record of an event, as EventRouter makes it with connectors/templates/outbox.json.

    Raises `LookupError`, `TypeError`, `AttributeError` or `ValueError` for a row that is none, and for an event that
    has no contract.
    """
    topic, payload, traceparent = row["aggregatetype"], row["payload"], row["traceparent"]
    if topic not in EVENTS:
        raise ValueError(f"there is no event {topic!r}")
    if not payload.startswith(_HEX):
        raise ValueError("the payload is no hexadecimal text")
    headers = (
        ("id", str(UUID(row["id"])).encode()),
        ("type", row["type"].encode()),
        ("traceparent", None if traceparent is None else traceparent.encode()),
    )
    value = bytes.fromhex(payload[len(_HEX) :])
    return KafkaRecord(topic, row["aggregateid"].encode(), value, headers, committed_ms)
