"""engagement: adds each like, repost, reply, bookmark, vote and follow to counts and flags, exactly once.

cdc.posts, cdc.likes, cdc.bookmarks, cdc.pins, cdc.conversation_mutes, cdc.poll_votes, cdc.follows, cdc.users -> what
each change does (readmodels/engagement.py) -> one command a value and batch (readmodels/applying.py) -> Redis. Values
that are missing are loaded from the database, once for many changes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.decode import Change
from connectors.decode_runs import RUN_RECORDS, RunChanges, decode_runs
from connectors.flows import FLOWS, group_of
from connectors.kafka_runs_source import KafkaRunsSource
from connectors.messages import Progress
from dataflows.effects import Performer
from fanline.metrics import VALUES_LOADED
from fanline.settings import get_settings
from readmodels.applying import Batch, Routed, RoutedRun
from readmodels.engagement import TOPICS, effects_of
from readmodels.engagement_columns import effects_of_columns
from readmodels.generations import using
from readmodels.incremental import MODEL, Kind, place, use_dialect
from sinks.redis import RedisSink, RedisWrite
from sinks.single_part import output

NAME = "engagement"
# A batch costs a round trip to Redis and one to the database; Redis is through with so many changes in about 30 ms.
BATCH_RECORDS = 2_000


def route(item: Change) -> Routed | None:
    """What a change does, and the place it came from."""
    effects = effects_of(item.change)
    return Routed(place(TOPICS[item.change.table], item.message.partition), effects) if effects else None


def route_run(run: RunChanges) -> RoutedRun | None:
    """The same for row changes that follow each other, if they can be taken at once."""
    effects = effects_of_columns(run.changes)
    return None if effects is None else RoutedRun(place(TOPICS[run.changes.table], run.partition), effects)


@dataclass(slots=True)
class Commands:
    """Commands for a node, and the value of each."""

    data: list[bytes] = field(default_factory=list)
    subjects: list[tuple[Kind, int | str]] = field(default_factory=list)


class Applying:
    """Turns batches into writes. The performer loads what is missing, on connections of its own."""

    def __init__(self, reader: Performer, writer: Performer) -> None:
        self._reader, self._writer = reader, writer
        self._generations: tuple[int, ...] = (0,)

    def __call__(self, items: list[Routed | RoutedRun | Progress]) -> Iterable[RedisWrite | Progress]:
        """One write a node and generation, then the progress of the batch."""
        batch = Batch(item for item in items if not isinstance(item, Progress))
        # Packed before Redis is asked for the generations: it answers when it is done with the batch before.
        packed = {generation: self._of_nodes(batch, generation) for generation in self._generations}
        self._generations = self._reader.generations(MODEL).all
        in_turn = True
        for generation in self._generations:
            of_nodes = packed[generation] if generation in packed else self._of_nodes(batch, generation)
            for node, commands in of_nodes.items():
                # A partition's changes must reach a value in their order, and a batch has one command a value.
                answer = self._answer(batch, generation, commands.subjects)
                yield RedisWrite(node, b"".join(commands.data), len(commands.data), answer, in_turn=in_turn)
                in_turn = False
        yield from (item for item in items if isinstance(item, Progress))

    def _of_nodes(self, batch: Batch, generation: int) -> dict[int, Commands]:
        found: dict[int, Commands] = {}
        with using(MODEL, generation):
            for writes in batch.writes():
                for node, places in self._writer.nodes.by_node(writes.keys).items():
                    commands = found.setdefault(node, Commands())
                    commands.data += [writes.data[at] for at in places]
                    commands.subjects += [(writes.kind, writes.identifiers[at]) for at in places]
        return found

    def _answer(self, batch: Batch, generation: int, subjects: Sequence[tuple[Kind, int | str]]) -> Any:
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
    source = KafkaRunsSource(FLOWS[NAME], group_of(NAME), least=RUN_RECORDS, most=BATCH_RECORDS)
    records = op.input("source", dataflow, source)
    routed = decode_runs("decode", records, NAME, route, route_run, reader.wait_until_visible)
    writes = op.flat_map_batch("batch", routed, Applying(reader, writer))
    output("values", writes, RedisSink(lambda: writer.nodes, group_of(NAME)))
    return dataflow


flow = build
