"""What the Kafka source emits: records, and progress between them."""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

# What a record raises that is not as its reader knows it: a field that is missing, of another type, or out of range.
UNUSABLE = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, struct.error)


class Message(NamedTuple):
    """A Kafka record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp_ms: int

    @property
    def place(self) -> tuple[str, int]:
        """Topic and partition whose `Progress` tells that the record is done."""
        return (self.topic, self.partition)

    @property
    def position(self) -> tuple[str, int, int]:
        """`place` and the record's offset there: no two records share it."""
        return (self.topic, self.partition, self.offset)


class Replayed(Message):
    """A rejected record that was sent back: it looks as it did in its own topic, but was read from a retry topic.

    Changes that came after it have been applied already, so what it tells of a row may be out of date.
    """

    retried: tuple[str, int] = ("", 0)
    retried_offset: int = 0

    @property
    def place(self) -> tuple[str, int]:
        """The retry topic and its partition."""
        return self.retried

    @property
    def position(self) -> tuple[str, int, int]:
        """`place` and the record's offset there."""
        return (*self.retried, self.retried_offset)


class Progress(NamedTuple):
    """Everything of a partition below `offset` has been emitted before this item.

    Steps pass it on in order; a sink commits it once all that came before is acknowledged. `timestamp_ms` is the
    time of the newest record below `offset`, 0 when this process has read none.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int = 0


def message_of(record: Any) -> Message:
    """A client's record, one without an error, as a `Message`."""
    return Message(
        record.topic(),
        record.partition(),
        record.offset(),
        record.key(),
        record.value(),
        record.headers() or (),
        record.timestamp()[1],
    )


def event_id(message: Message) -> UUID | None:
    """The id of the event's outbox row, which Debezium's EventRouter puts into the header `id`; None if it is none."""
    for name, value in message.headers:
        if name == "id" and value is not None:
            try:
                return UUID(value.decode())
            except ValueError:
                return None
    return None
