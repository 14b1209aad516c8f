"""Listens to `cdc.posts` beside the flows, to tell when a post was committed, captured and consumable."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, Message, TopicPartition

from connectors.kafka_clients import REQUEST_TIMEOUT_SECONDS, consumer_config, typed_errors
from fanline.addresses import registry_url
from fanline.avro import AvroDecoder, SchemaRegistry
from fanline.changes import row_change
from fanline.errors import DependencyUnavailable, MalformedEvent
from fanline.settings import Settings

TOPIC = "cdc.posts"
# Posts that are remembered; a journey that has not asked by then never will.
_REMEMBERED = 50_000


@dataclass(frozen=True, slots=True)
class Seen:
    """When a post went by, in Unix seconds."""

    committed: float
    captured: float
    consumed: float


class PostTap:
    """A thread that reads new records of `cdc.posts`. Use it as a context manager.

    `on_post` is called in that thread with id and author of each new post that is neither a reply nor a repost.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.on_post: Callable[[int, UUID], None] = lambda post_id, author: None
        self._seen: dict[int, Seen] = {}
        self._stop = threading.Event()
        self._decoder = AvroDecoder(SchemaRegistry(registry_url(settings)).schema)
        self._consumer = Consumer(consumer_config(settings, "fanline-demo-tap", "demo"))
        self._thread = threading.Thread(target=self._run, name="tap", daemon=True)

    def __enter__(self) -> "PostTap":
        with typed_errors(self._settings):
            topic = self._consumer.list_topics(TOPIC, timeout=REQUEST_TIMEOUT_SECONDS).topics[TOPIC]
            if topic.error is not None:
                raise DependencyUnavailable(f"Kafka has no topic {TOPIC}: is the connector running?")
            places = [TopicPartition(TOPIC, number) for number in topic.partitions]
            for place in places:
                _, place.offset = self._consumer.get_watermark_offsets(place, timeout=REQUEST_TIMEOUT_SECONDS)
            self._consumer.assign(places)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def seen(self, post_id: int) -> Seen | None:
        """When the post's insert went by; None if it has not yet."""
        return self._seen.get(post_id)

    def _run(self) -> None:
        while not self._stop.is_set():
            # poll, not consume: that one waits for its whole batch.
            record = self._consumer.poll(0.1)
            if record is not None and record.error() is None and record.value() is not None:
                self._take(record)

    def _take(self, record: Message) -> None:
        consumed = time.time()
        kind, captured_ms = record.timestamp()
        try:
            change = row_change("posts", self._decoder.decode(record.value() or b""))
        except (MalformedEvent, DependencyUnavailable):
            # The flows report what is wrong; a journey without its moments is left out of the figures.
            return
        if change.op != "c" or kind == TIMESTAMP_NOT_AVAILABLE:
            return
        self._seen[change.row["id"]] = Seen(change.source_ms / 1_000, captured_ms / 1_000, consumed)
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        if change.row["repost_of_id"] is None and change.row["in_reply_to_id"] is None:
            self.on_post(change.row["id"], UUID(change.row["author_id"]))
