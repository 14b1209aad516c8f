"""engagement: adds each like, repost, reply, bookmark, vote and follow to counts and flags, exactly once.

cdc.posts, cdc.likes, cdc.bookmarks, cdc.pins, cdc.conversation_mutes, cdc.poll_votes, cdc.follows, cdc.users -> what
each change does (readmodels/engagement.py) -> one command a value and batch (readmodels/applying.py) -> Redis. Values
that are missing are loaded from the database, once for many changes.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.decode import Change, decode_changes
from connectors.flows import FLOWS, group_of
from connectors.kafka_source import KafkaSource
from connectors.messages import Progress
from dataflows.effects import Performer
from fanline.metrics import VALUES_LOADED
from fanline.settings import get_settings
from readmodels.applying import Batch, Routed, Write
from readmodels.engagement import TOPICS, effects_of
from readmodels.generations import using
from readmodels.incremental import MODEL, place, use_dialect
from sinks.redis import RedisSink, RedisWrite
from sinks.single_part import output

NAME = "engagement"


def route(item: Change) -> Routed | None:
    """What a change does, and the place it came from."""
    effects = effects_of(item.change)
    return Routed(place(TOPICS[item.change.table], item.message.partition), effects) if effects else None


class Applying:
    """Turns batches into writes. The performer loads what is missing, on connections of its own."""

    def __init__(self, reader: Performer, writer: Performer) -> None:
        self._reader, self._writer = reader, writer
        self._generations: tuple[int, ...] = (0,)

    def __call__(self, items: list[Routed | Progress]) -> Iterable[RedisWrite | Progress]:
        """One write a node and generation, then the progress of the batch."""
        batch = Batch(item for item in items if not isinstance(item, Progress))
        # Packed before Redis is asked for the generations: it answers when it is done with the batch before.
        packed = {generation: self._of_nodes(batch, generation) for generation in self._generations}
        self._generations = self._reader.generations(MODEL).all
        in_turn = True
        for generation in self._generations:
            of_nodes = packed[generation] if generation in packed else self._of_nodes(batch, generation)
            for node, writes in of_nodes.items():
                payload = b"".join([write.data for write in writes])
                # A partition's changes must reach a value in their order, and a batch has one command a value.
                yield RedisWrite(node, payload, len(writes), self._answer(batch, generation, writes), in_turn=in_turn)
                in_turn = False
        yield from (item for item in items if isinstance(item, Progress))

    def _of_nodes(self, batch: Batch, generation: int) -> dict[int, list[Write]]:
        of_node: dict[int, list[Write]] = {}
        with using(MODEL, generation):
            for write in batch.writes():
                of_node.setdefault(self._writer.nodes.node_of(write.key), []).append(write)
        return of_node

    def _answer(self, batch: Batch, generation: int, writes: Sequence[Write]) -> Any:
        subjects = [write.subject for write in writes]

        def on_replies(replies: list[Any]) -> None:
            if 0 in replies:
                with using(MODEL, generation):
                    VALUES_LOADED.inc(self._reader.run(batch.complete(subjects, replies)))

        return on_replies


def build() -> Dataflow:
    """The flow."""
    settings = get_settings()
    use_dialect(settings.database_dialect)
    reader, writer = Performer(settings, NAME), Performer(settings, NAME)
    dataflow = Dataflow(NAME)
    records = op.input("source", dataflow, KafkaSource(FLOWS[NAME], group_of(NAME)))
    routed = decode_changes("decode", records, NAME, convert=route, wait_until_visible=reader.wait_until_visible)
    writes = op.flat_map_batch("batch", routed, Applying(reader, writer))
    output("values", writes, RedisSink(lambda: writer.nodes, group_of(NAME)))
    return dataflow


flow = build
