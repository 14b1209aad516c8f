"""Turns chunks of followers into payloads for Redis, and looks at what Redis answers."""

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

from dataflows.effects import Performer
from fanline.metrics import COMPACTIONS, DELIVERIES, DELIVERIES_COLD, POST_TO_TIMELINE_SECONDS
from fanline.redis_nodes import RedisNodes
from fanline.tracing import record_span
from readmodels.aggregates import Retention
from readmodels.deliveries import DeliveryCounts, write
from readmodels.fan_out import FanOut
from readmodels.followers import split_ids
from readmodels.generations import using
from readmodels.spreading import Chunk
from readmodels.timelines import MODEL, compact, push_prefix, pushes, timeline_key
from sinks.redis import RedisWrite

# Followers whose prefixes are kept: some 40 MB.
FOLLOWERS_KEPT = 256_000
# What a run has not written when it dies is missing from the time series.
COUNTS_SECONDS = 1.0


class Prepared:
    """One node's part of a chunk: an author's followers, and the bytes that come before each one's entry."""

    __slots__ = ("author", "followers", "generation", "node", "prefixes")

    def __init__(self, author: UUID, node: int, generation: int) -> None:
        self.author, self.node, self.generation = author, node, generation
        self.followers: list[bytes] = []
        self.prefixes: list[bytes] = []


class Deliveries:
    """Makes the writes of a flow; `cap` and `slack` are the timelines' (FANLINE_TIMELINE_CAP, _SLACK)."""

    def __init__(self, performer: Performer, cap: int, slack: int) -> None:
        self._performer = performer
        self.generations: Sequence[int] = (0,)
        """The generations of the timelines that are kept, the serving one first."""
        self._counts = DeliveryCounts()
        self._counted_at = 0.0
        self._cap = cap
        self._full = cap + slack
        self._prepared: OrderedDict[tuple[UUID, int, int], tuple[bytes, list[Prepared]]] = OrderedDict()
        self._kept = 0

    def writes(self, chunks: Iterable[Chunk]) -> Iterator[RedisWrite]:
        """The writes that push each chunk's posts to its followers' timelines."""
        nodes = self._performer.nodes
        for chunk in chunks:
            entries = [fan_out.entry for fan_out in chunk.fan_outs]
            parts = [part for generation in self.generations for part in self._prepare(chunk, generation, nodes)]
            for number, part in enumerate(parts):
                is_last = number == len(parts) - 1
                done = [fan_out for fan_out in chunk.fan_outs if fan_out.is_done] if is_last else []
                yield RedisWrite(
                    part.node, pushes(part.prefixes, entries), len(part.followers),
                    _Answer(self, part, len(entries), done),
                )  # fmt: skip

    def write_counts(self, performer: Performer, kept: Retention) -> None:
        """Adds what was delivered to the time series, once a second at most (readmodels/deliveries.py)."""
        now = time.time()
        if now - self._counted_at >= COUNTS_SECONDS:
            self._counted_at = now
            if counted := self._counts.take(int(now)):
                performer.run(write(counted, int(now), kept))

    def _prepare(self, chunk: Chunk, generation: int, nodes: RedisNodes) -> list[Prepared]:
        author = chunk.fan_outs[0].author
        key = author, chunk.index, generation
        kept = self._prepared.get(key)
        if kept is not None and kept[0] == chunk.followers:
            self._prepared.move_to_end(key)
            return kept[1]
        parts: dict[int, Prepared] = {}
        with using(MODEL, generation):
            for follower in split_ids(chunk.followers):
                node = nodes.node_of(timeline_key(UUID(bytes=follower)))
                part = parts.setdefault(node, Prepared(author, node, generation))
                part.followers.append(follower)
                part.prefixes.append(push_prefix(follower))
        prepared = list(parts.values())
        self._forget(key)
        self._prepared[key] = chunk.followers, prepared
        self._kept += len(chunk.followers) // 16
        while self._kept > FOLLOWERS_KEPT:
            self._forget(next(iter(self._prepared)))
        return prepared

    def _forget(self, key: tuple[UUID, int, int]) -> None:
        if key in self._prepared:
            self._kept -= len(self._prepared.pop(key)[0]) // 16

    def answered(self, part: Prepared, posts: int, done: Sequence[FanOut], lengths: Sequence[int]) -> list[RedisWrite]:
        """Counts what was delivered; the writes that cut timelines which have grown too long."""
        if part.generation == self.generations[0]:
            cold = lengths.count(0)
            DELIVERIES.inc((len(lengths) - cold) * posts)
            self._counts.add(part.author, (len(lengths) - cold) * posts, int(time.time()))
            DELIVERIES_COLD.inc(cold * posts)
        for fan_out in done:
            _observe(fan_out)
        # The length counts the header too.
        if max(lengths) <= self._full + 1:
            return []
        full = [part.followers[at] for at, length in enumerate(lengths) if length > self._full + 1]
        COMPACTIONS.inc(len(full))
        with using(MODEL, part.generation):
            cuts = [compact(UUID(bytes=follower), self._cap) for follower in full]
        return [RedisWrite(part.node, b"".join(cut.data for cut in cuts), len(cuts))]


class _Answer:
    """What to do with a write's replies."""

    __slots__ = ("_deliveries", "_done", "_part", "_posts")

    def __init__(self, deliveries: Deliveries, part: Prepared, posts: int, done: Sequence[FanOut]) -> None:
        self._deliveries, self._part, self._posts, self._done = deliveries, part, posts, done

    def __call__(self, replies: list[Any]) -> list[RedisWrite]:
        return self._deliveries.answered(self._part, self._posts, self._done, replies)


def _observe(fan_out: FanOut) -> None:
    now_ms = time.time_ns() // 1_000_000
    POST_TO_TIMELINE_SECONDS.observe(max(0, now_ms - fan_out.source_ms) / 1000)
    record_span(
        "timelines.deliver", fan_out.traceparent, fan_out.source_ms, now_ms,
        {"post.id": str(int.from_bytes(fan_out.entry[:8]))},
    )  # fmt: skip
