"""The first step of a flow over domain events: Kafka records to `Event` items, bad ones to the dead letters."""

import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple
from uuid import UUID

import bytewax.operators as op
from bytewax.dataflow import Stream

from connectors.dead_letter import DeadLetters
from connectors.kafka_source import Item
from connectors.messages import UNUSABLE, Message, event_id
from connectors.record_decoder import RecordDecoder, patiently
from fanline.addresses import registry_url
from fanline.avro import AvroDecoder, SchemaRegistry
from fanline.changes import TOPIC_PREFIX, table_of
from fanline.cockroach import change_in
from fanline.errors import MalformedEvent
from fanline.settings import Settings, get_settings

# An event that Kafka has had for so long was visible long ago; its outbox row may have been pruned since.
YOUNG_MS = 60_000


class Event(NamedTuple):
    """A domain event: its name (the topic's), its fields as in `schemas/avro`, and the record that it came in."""

    message: Message
    name: str
    fields: dict[str, Any]


def decode_events(
    step_id: str,
    up: Stream[Item],
    flow: str,
    settings: Settings | None = None,
    convert: Callable[[Event], Any] | None = None,
    wait_until_recorded: Callable[[Collection[UUID]], None] | None = None,
) -> Stream[Any]:
    """Decode a stream of records and progress, in its order.

    `convert` turns each `Event` into what the flow works with, or None to drop it; without it events are passed on.
    `wait_until_recorded` is given the outbox ids of a batch's events and returns when queries see them, and so the rows
    of their transactions. Records that cannot be understood, `convert` included, become dead letters of `flow`,
    delivered before anything of their batch or after is passed on. Raises `DeadLetterBrake` when there are too many.
    """
    settings = settings or get_settings()
    decoder = AvroDecoder(SchemaRegistry(registry_url(settings)).schema)
    step = EventDecoder(decoder.decode, DeadLetters(flow, settings), convert, wait_until_recorded)
    return op.flat_map_batch(step_id, up, step)


class EventDecoder(RecordDecoder):
    """Decodes batches; waits while the registry is away, and until queries see the batch's transactions."""

    def __init__(
        self,
        decode: Callable[[bytes], dict[str, Any]],
        dead_letters: DeadLetters,
        convert: Callable[[Event], Any] | None = None,
        wait_until_recorded: Callable[[Collection[UUID]], None] | None = None,
    ) -> None:
        super().__init__(dead_letters)
        self._decode, self._convert = decode, convert
        self._wait_until_recorded = wait_until_recorded
        self._young: set[UUID] = set()

    def item(self, message: Message, value: bytes) -> Any:
        """The event in a record, converted."""
        fields = self._fields(message, value)
        if fields is None:
            return None
        event = Event(message, message.topic, fields)
        made = self._made(event)
        if made is not None and self._wait_until_recorded is not None:
            self._note(message)
        return made

    def wait(self) -> None:
        """Returns when queries see what the transactions of the batch's young events have committed."""
        young, self._young = self._young, set()
        if young and self._wait_until_recorded is not None:
            self._wait_until_recorded(young)

    def _fields(self, message: Message, value: bytes) -> dict[str, Any] | None:
        """An event's fields, or a row's columns; None for a message of a changefeed that tells of no row."""
        if not (message.topic.startswith(TOPIC_PREFIX) and value.startswith(b"{")):
            return patiently(self._decode, value)
        change = change_in(table_of(message.topic), value, message.key, self._decode)
        return None if change is None else change.row | {"__deleted": "true" if change.op == "d" else "false"}

    def _note(self, message: Message) -> None:
        identifier = event_id(message)
        if identifier is not None and time.time_ns() // 1_000_000 - message.timestamp_ms < YOUNG_MS:
            self._young.add(identifier)

    def _made(self, event: Event) -> Any:
        if self._convert is None:
            return event
        try:
            return self._convert(event)
        except UNUSABLE as error:
            raise MalformedEvent(f"The event {event.name} cannot be used: {error!r}.") from error
