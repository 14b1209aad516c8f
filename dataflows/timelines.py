"""timelines: pushes each post to the home timelines of its author's followers.

cdc.posts -> the author's recent list -> chunks of followers, in turn (readmodels/fan_out.py) -> one joined payload a
chunk and Redis node -> RPUSHX. What a delivery costs in Python is its share of one `bytes.join`. A deleted post needs
no write, unless its author is gone with it (readmodels/departures.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic

from connectors.decode import Change, decode_changes
from connectors.flows import FLOWS, group_of
from connectors.kafka_source import KafkaSource
from connectors.lifecycle import on_pulse
from connectors.messages import Progress
from dataflows.deliveries import Deliveries
from dataflows.effects import Performer, limits
from fanline.settings import get_settings
from readmodels import followers, timelines
from readmodels.aggregates import retention
from readmodels.departures import forget_recents
from readmodels.entries import pack_entry
from readmodels.fan_out import FanOut, FanOutQueue
from readmodels.following import Limits
from readmodels.spreading import Post, advance, begin
from sinks.redis import RedisSink, RedisWrite

NAME = "timelines"

# Deliveries in one turn of the flow: enough to keep Redis busy while the next ones are read, few enough that a new post
# waits for some milliseconds at most. Turns are asked for in chunks; what a chunk delivers is learned on the way.
DELIVERIES_A_TURN = 16_000
MOST_CHUNKS_A_TURN = 512
# Posts that are spread side by side. The flow reads no further while there are more: what is read is kept in memory and
# in each snapshot.
POSTS_AT_ONCE = 2_000

Partition = tuple[str, int]
State = list[tuple[Partition, FanOut]]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A post and the partition it came from."""

    partition: Partition
    post: Post


@dataclass(frozen=True, slots=True)
class Deleted:
    """A post that is gone; its author may be gone with it."""

    author: UUID


def arrival(item: Change) -> Arrival | Deleted | None:
    """The post that a change of the table `posts` adds or takes away; None for changes that do neither."""
    row = item.change.row
    if item.change.op == "d":
        return Deleted(UUID(row["author_id"]))
    if item.change.op not in "cr":
        return None
    post = Post(
        author=UUID(row["author_id"]),
        entry=pack_entry(row["id"], row["repost_of_id"]),
        direct=row["visibility"] == "direct",
        source_ms=item.change.source_ms,
        traceparent=row["traceparent"],
    )
    return Arrival(item.message.place, post)


class Spreader(StatefulBatchLogic[Arrival | Deleted | Progress, RedisWrite | Progress, State]):
    """Keeps the queue of fan-outs; its state is what has not been sent yet."""

    def __init__(self, performer: Performer, deliveries: Deliveries, limits: Limits, state: State | None) -> None:
        self._performer, self._deliveries, self._limits = performer, deliveries, limits
        self._queue: FanOutQueue[Partition] = FanOutQueue()
        self._chunk_size = float(limits.followers_chunk)
        for partition, fan_out in state or ():
            self._queue.add(partition, fan_out)

    def on_batch(self, values: list[Arrival | Deleted | Progress]) -> tuple[Iterable[RedisWrite | Progress], bool]:
        """Begins the posts of a batch and takes a turn."""
        posts = [value.post for value in values if isinstance(value, Arrival)]
        self._deliveries.generations = self._performer.generations(timelines.MODEL).all
        begun = iter(self._performer.each((followers.MODEL, timelines.MODEL), lambda: begin(posts, self._limits)))
        authors = {value.author for value in values if isinstance(value, Deleted)}
        if authors:
            self._performer.each((followers.MODEL,), lambda: forget_recents(authors))
        for value in values:
            if isinstance(value, Progress):
                self._queue.mark((value.topic, value.partition), value)
            elif isinstance(value, Arrival):
                self._queue.add(value.partition, next(begun))
        items = self._turn()
        while len(self._queue) > POSTS_AT_ONCE:
            items += self._turn()
        return items, False

    def on_notify(self) -> tuple[Iterable[RedisWrite | Progress], bool]:
        """Takes a turn."""
        return self._turn(), False

    def notify_at(self) -> datetime | None:
        """At once, as long as there is something to spread."""
        return datetime.now(UTC) if self._queue else None

    def snapshot(self) -> State:
        """The fan-outs that are not done."""
        return [(partition, fan_out.copy()) for partition, fan_out in self._queue.pending()]

    def _turn(self) -> list[RedisWrite | Progress]:
        wanted = min(MOST_CHUNKS_A_TURN, 1 + int(DELIVERIES_A_TURN / self._chunk_size))
        chunks = self._performer.run(advance(self._queue, wanted))
        if chunks:
            size = sum(len(chunk.followers) * len(chunk.fan_outs) for chunk in chunks) / 16 / len(chunks)
            self._chunk_size = max(1.0, (self._chunk_size + size) / 2)
        writes: list[RedisWrite | Progress] = list(self._deliveries.writes(chunks))
        return writes + self._queue.release()


def build() -> Dataflow:
    """The flow."""
    settings = get_settings()
    # Two connections, so that reads do not wait behind the deliveries that Redis has not come to yet.
    reader, writer = Performer(settings, NAME), Performer(settings, NAME)
    deliveries = Deliveries(writer, settings.timeline_cap, settings.timeline_slack)
    kept = retention(settings.aggregates_minutes_days, settings.aggregates_hours_days, settings.aggregates_days_days)
    on_pulse(lambda: deliveries.write_counts(reader, kept))
    dataflow = Dataflow(NAME)
    records = op.input("source", dataflow, KafkaSource(FLOWS[NAME], group_of(NAME)))
    arrivals = decode_changes("decode", records, NAME, convert=arrival, wait_until_visible=reader.wait_until_visible)
    writes = op.stateful_batch(
        "spread",
        op.key_on("one-queue", arrivals, lambda _: NAME),
        lambda state: Spreader(reader, deliveries, limits(settings), state),
    )
    op.output("timelines", writes, RedisSink(lambda: writer.nodes, group_of(NAME)))
    return dataflow


flow = build
