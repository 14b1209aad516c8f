"""Reads the log for one process: every partition of some topics, in a thread, without committing anything.

A batch is handed to the event loop and waited for before the next one is read, so a loop that does not keep up slows
the reading, and nothing piles up.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError
from typing import Any

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from api.streaming.batch import Batch
from connectors.kafka_clients import REQUEST_TIMEOUT_SECONDS, consumer_config
from connectors.messages import UNUSABLE, Message, event_id, message_of
from connectors.offsets import Partition
from fanline.addresses import registry_url
from fanline.avro import AvroDecoder, SchemaRegistry
from fanline.changes import TOPIC_PREFIX, table_of
from fanline.cockroach import change_in
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
        """`take` is awaited on the loop with each batch.

        `lost` is called there when records are gone from Kafka, or when something unforeseen broke the reading off: it
        goes on behind the records that were read. `starts` is told there from which offset on partitions are read,
        before anything of them is taken.
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
        """Set once everything that was in Kafka at the start, or when reading began anew, has been taken."""

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
        while not self._stop.is_set():
            try:
                self._follow()
            except CancelledError:
                return
            except Exception:  # noqa: BLE001 - whatever it was, streams must not stay open and silent
                _log.exception("the reading of the log for streams broke off, and begins anew", offsets=self._offsets())
                self._begin_anew()
                self._stop.wait(RETRY_SECONDS)

    def _follow(self) -> None:
        consumer = Consumer(consumer_config(self._settings, "fanline-streams", "streams"))
        try:
            if self._known:
                self._assign(consumer)
            while not self._stop.is_set():
                try:
                    self._discover(consumer)
                    self._read(consumer)
                except (KafkaException, DependencyUnavailable) as error:
                    _log.warning("streams wait for kafka", reason=str(error))
                    self._stop.wait(RETRY_SECONDS)
        finally:
            consumer.close()

    def _begin_anew(self) -> None:
        """What was read and perhaps not told is left out; clients are ended, and catch up with it when they return."""
        assert self._loop is not None
        self._not_at_end = set(self._known)
        self._loop.call_soon_threadsafe(self.caught_up.clear)
        self._loop.call_soon_threadsafe(self._starts, dict(self._known))
        self._loop.call_soon_threadsafe(self._lost)

    def _assign(self, consumer: Consumer) -> None:
        consumer.assign([TopicPartition(*place, offset) for place, offset in self._known.items()])

    def _offsets(self) -> dict[str, int]:
        return {f"{topic}/{partition}": offset for (topic, partition), offset in self._known.items()}

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
        self._assign(consumer)

    def _read(self, consumer: Consumer) -> None:
        until = time.monotonic() + (DISCOVERY_SECONDS if self._known else RETRY_SECONDS)
        while not self._stop.is_set() and time.monotonic() < until:
            # poll waits for the first record only; consume would wait for its whole batch.
            first = consumer.poll(POLL_SECONDS)
            if first is None:
                continue
            self._hand_over(consumer, [first, *consumer.consume(BATCH_RECORDS, 0)])

    def _hand_over(self, consumer: Consumer, records: list[Record]) -> None:
        batch = Batch()
        ended: set[Partition] = set()
        lost = False
        for record in records:
            place = (str(record.topic()), int(record.partition() or 0))
            error = record.error()
            if error is None:
                # Before it is looked at: reading that breaks off on it must not come back to it.
                self._known[place] = int(record.offset() or 0) + 1
                self._add(batch, message_of(record))
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(place)
            elif error.code() in _GONE:
                lost = True
        if batch:
            self._on_loop(self._take(batch))
        if self._not_at_end:
            self._not_at_end -= ended
            if not self._not_at_end and self._loop is not None:
                self._loop.call_soon_threadsafe(self.caught_up.set)
        if lost and self._loop is not None:
            _log.error("records were lost to retention before the streams read them")
            consumer.assign([TopicPartition(*place, OFFSET_END) for place in self._known])
            self._loop.call_soon_threadsafe(self._lost)

    def _add(self, batch: Batch, message: Message) -> None:
        if message.value is None:
            return
        try:
            if message.topic.startswith(TOPIC_PREFIX):
                change = change_in(table_of(message.topic), message.value, message.key, self._decode)
                if change is not None:
                    batch.add_change(change, message.place, message.offset)
            else:
                batch.add_event(message.topic, self._decode(message.value), event_id(message), message.timestamp_ms)
        except (MalformedEvent, *UNUSABLE) as error:
            # The flows send it to their dead letters; a stream only passes over it.
            topic, partition, offset = message.position
            _log.warning(
                "a record was passed over", topic=topic, partition=partition, offset=offset, reason=repr(error)
            )

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
