"""How a rejected record goes back to the flow that rejected it, and to no other.

It goes to the flow's retry topic, not to its own: there every flow would read it again, and in a compacted topic of
row changes it would stand as the newest change of its row. The record keeps its key, value and headers; headers in
front of them say where it was, so that the flow sees it as it was. A retry topic has as many partitions as the topics
of row changes, and a record keeps its number, so the instance that rejected it gets it.
"""

from collections.abc import Sequence

from connectors.messages import Message, Replayed

Headers = Sequence[tuple[str, bytes | None]]

ORIGIN = ("original_topic", "original_partition", "original_offset", "original_timestamp")
REPLAYS = "replays"


def retry_headers(topic: str, partition: int, offset: int, timestamp_ms: int, own: Headers) -> list[tuple[str, bytes]]:
    """The headers of a record in a retry topic: its origin, how often it was sent back, and its own headers."""
    before = next((int(value) for name, value in own if name == REPLAYS and value is not None and value.isdigit()), 0)
    return [
        ("original_topic", topic.encode()),
        ("original_partition", b"%d" % partition),
        ("original_offset", b"%d" % offset),
        ("original_timestamp", b"%d" % timestamp_ms),
        (REPLAYS, b"%d" % (before + 1)),
        *((name, value or b"") for name, value in own if name != REPLAYS),
    ]


def replayed(record: Message) -> Replayed | None:
    """The record of a retry topic as it was in its own; None when it does not say where that was."""
    origin = record.headers[: len(ORIGIN)]
    if tuple(name for name, _ in origin) != ORIGIN:
        return None
    topic, *numbers = ((value or b"") for _, value in origin)
    try:
        partition, offset, timestamp_ms = map(int, numbers)
        own = record.headers[len(ORIGIN) :]
        made = Replayed(topic.decode(), partition, offset, record.key, record.value, own, timestamp_ms)
    except ValueError:
        return None
    made.retried, made.retried_offset = (record.topic, record.partition), record.offset
    return made
