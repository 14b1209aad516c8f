"""Reads the log for one process: every partition of some topics, in a thread, without committing anything.

A batch is handed to the event loop and waited for before the next one is read, so a loop that does not keep up slows
the reading, and nothing piles up.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from connectors.kafka_clients import REQUEST_TIMEOUT_SECONDS, consumer_config
from connectors.offsets import Partition
from fanline.addresses import registry_url
from fanline.avro import AvroDecoder, SchemaRegistry
from fanline.changes import TOPIC_PREFIX, RowChange, row_change, table_of
from fanline.errors import DependencyUnavailable, MalformedEvent
from fanline.logging import get_logger
from fanline.settings import Settings

# Long enough to cost nothing when idle, short enough that a process ends at once.
POLL_SECONDS = 0.1
BATCH_RECORDS = 500
RETRY_SECONDS = 0.5
# New topics and partitions are rare, and a listing costs the thread some milliseconds.
DISCOVERY_SECONDS = 30.0

_GONE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
_log = get_logger(__name__)


@dataclass(slots=True)
class Batch:
    """What was read at once, in the log's order a partition."""

    changes: list[tuple[RowChange, Partition, int]] = field(default_factory=list)
    """Row changes with the place of their record and its offset."""
    events: list[tuple[str, dict[str, Any], UUID | None, int]] = field(default_factory=list)
    """Domain events: topic, fields, outbox id, and when Kafka got it in ms."""


class LogReader:
    """A thread that reads from `back_seconds` ago on; `start` it, `stop` it."""

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[str],
        back_seconds: float,
        take: Callable[[Batch], Awaitable[None]],
        lost: Callable[[], None],
        starts: Callable[[dict[Partition, int]], None],
    ) -> None:
        """`take` is awaited on the loop with each batch; `lost` is called there when records are gone from Kafka.

        `starts` is told there from which offset on new partitions are read, before anything of them is taken.
        """
        self._settings, self._topics, self._back_seconds = settings, tuple(topics), back_seconds
        self._take, self._lost, self._starts = take, lost, starts
        self._stop = threading.Event()
        self._decoder = AvroDecoder(SchemaRegistry(registry_url(settings)).schema)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._not_at_end: set[Partition] = set()
        self._known: dict[Partition, int] = {}
        self.caught_up = asyncio.Event()
        """Set once everything that was in Kafka at the start has been taken."""

    def start(self) -> None:
        """Begin, inside the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        consumer = Consumer(consumer_config(self._settings, "fanline-streams", "streams"))
        try:
            while not self._stop.is_set():
                try:
                    self._discover(consumer)
                    self._read(consumer)
                except (KafkaException, DependencyUnavailable) as error:
                    _log.warning("streams wait for kafka", reason=str(error))
                    self._stop.wait(RETRY_SECONDS)
        except CancelledError:
            pass
        finally:
            consumer.close()

    def _discover(self, consumer: Consumer) -> None:
        """Assign the partitions that are not read yet, and the known ones where they are."""
        existing = consumer.list_topics(timeout=REQUEST_TIMEOUT_SECONDS).topics
        found = [
            (topic, number) for topic in self._topics if topic in existing for number in existing[topic].partitions
        ]
        new = [place for place in found if place not in self._known]
        if not new:
            return
        since_ms = int((time.time() - self._back_seconds) * 1_000)
        asked = [TopicPartition(*place, since_ms) for place in new]
        for answer in consumer.offsets_for_times(asked, timeout=REQUEST_TIMEOUT_SECONDS):
            place = (answer.topic, answer.partition)
            offset = answer.offset
            if offset < 0:
                _, offset = consumer.get_watermark_offsets(TopicPartition(*place), timeout=REQUEST_TIMEOUT_SECONDS)
            self._known[place] = offset
            self._not_at_end.add(place)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._starts, {place: self._known[place] for place in new})
        consumer.assign([TopicPartition(*place, offset) for place, offset in self._known.items()])

    def _read(self, consumer: Consumer) -> None:
        until = time.monotonic() + (DISCOVERY_SECONDS if self._known else RETRY_SECONDS)
        while not self._stop.is_set() and time.monotonic() < until:
            # poll waits for the first record only; consume would wait for its whole batch.
            first = consumer.poll(POLL_SECONDS)
            if first is None:
                continue
            self._hand_over(consumer, [first, *consumer.consume(BATCH_RECORDS, 0)])

    def _hand_over(self, consumer: Consumer, records: list[Message]) -> None:
        batch = Batch()
        ended: set[Partition] = set()
        lost = False
        for record in records:
            place = (str(record.topic()), int(record.partition() or 0))
            error = record.error()
            if error is None:
                self._add(batch, record, place)
                self._known[place] = int(record.offset() or 0) + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(place)
            elif error.code() in _GONE:
                lost = True
        if batch.changes or batch.events:
            self._on_loop(self._take(batch))
        if self._not_at_end:
            self._not_at_end -= ended
            if not self._not_at_end and self._loop is not None:
                self._loop.call_soon_threadsafe(self.caught_up.set)
        if lost and self._loop is not None:
            _log.error("records were lost to retention before the streams read them")
            consumer.assign([TopicPartition(*place, OFFSET_END) for place in self._known])
            self._loop.call_soon_threadsafe(self._lost)

    def _add(self, batch: Batch, record: Message, place: Partition) -> None:
        value = record.value()
        if value is None:
            return
        try:
            fields = self._decode(value)
            if place[0].startswith(TOPIC_PREFIX):
                change = row_change(table_of(place[0]), fields)
                batch.changes.append((change, place, int(record.offset() or 0)))
            else:
                batch.events.append((place[0], fields, _outbox_id(record), record.timestamp()[1]))
        except MalformedEvent as error:
            # The flows send it to their dead letters; a stream only passes over it.
            _log.warning("a record was passed over", topic=place[0], reason=str(error))

    def _decode(self, value: bytes) -> dict[str, Any]:
        while True:
            try:
                return self._decoder.decode(value)
            except DependencyUnavailable as error:
                _log.warning("streams wait for the schema registry", reason=str(error))
                if self._stop.wait(RETRY_SECONDS):
                    raise CancelledError from error

    def _on_loop(self, work: Awaitable[None]) -> None:
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(_awaited(work), self._loop)
        while not self._stop.is_set():
            try:
                future.result(POLL_SECONDS)
                return
            except TimeoutError:
                if future.done():
                    raise
        future.cancel()
        raise CancelledError


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _outbox_id(record: Message) -> UUID | None:
    headers: Any = record.headers() or ()
    for name, value in headers:
        if name == "id" and isinstance(value, bytes):
            return UUID(value.decode())
    return None
