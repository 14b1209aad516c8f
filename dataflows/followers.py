"""followers: keeps each author's followers, in chunks, and backfills timelines when somebody starts to follow.

cdc.follows -> edges, cdc.users -> people who have left -> readmodels/following.py -> Redis. When Redis has lost its
data, the first instance builds followers and recent posts again from the database (readmodels/readiness.py) before it
goes on; others wait.
"""

import time
from collections.abc import Sequence
from uuid import UUID

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.decode import Change, decode_changes
from connectors.flows import FLOWS, group_of
from connectors.kafka_source import KafkaSource
from connectors.lifecycle import on_pulse
from dataflows.effects import Performer, limits
from fanline.errors import DependencyUnavailable
from fanline.logging import get_logger
from fanline.metrics import REBUILDS
from fanline.settings import Settings, get_settings
from readmodels import followers, readiness, timelines
from readmodels.followers import Edge
from readmodels.following import apply_edges
from readmodels.generations import using
from sinks.batch import BatchSink
from sinks.single_part import output

NAME = "followers"

# How often a flow looks whether Redis still has its data. Until it has looked, posts are missing only from timelines
# that are lost themselves.
LOOK_SECONDS = 0.2

_log = get_logger(__name__)


def step(item: Change) -> Edge | UUID | None:
    """The follow that came or went, or the person who has left; None for other changes of people."""
    change = item.change
    if change.table == "users":
        return UUID(change.row["id"]) if change.op == "d" else None
    return Edge(
        follower=UUID(change.row["follower_id"]),
        followee=UUID(change.row["followee_id"]),
        follows=change.op != "d",
        partition=item.message.partition,
        position=change.position,
        # Only Postgres names transactions, and only its log has an order across rows.
        ordered=change.transaction is not None,
    )


class Followers:
    """What the flow does with a batch."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limits = limits(settings)
        self.performer = Performer(settings, NAME)
        self._looked = float("-inf")

    def apply(self, steps: Sequence[Edge | UUID]) -> None:
        """Applies a batch, after a rebuild if one is needed; repeating it changes nothing."""
        self.make_ready()
        edges = [each for each in steps if isinstance(each, Edge)]
        departed = [each for each in steps if isinstance(each, UUID)]
        self.performer.each((followers.MODEL, timelines.MODEL), lambda: apply_edges(edges, self._limits, departed))

    def make_ready(self) -> None:
        """Looks, now and then, whether the serving generation has everything, and builds it if not.

        Raises `DependencyUnavailable` in an instance that has to wait for the first one to do so.
        """
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        serving = self.performer.generations(followers.MODEL).serving
        with using(followers.MODEL, serving):
            self._make_ready()
        self._looked = time.monotonic()

    def _make_ready(self) -> None:
        if self.performer.run(readiness.generation()) is None:
            if self._settings.flow_instance != 0:
                raise DependencyUnavailable("It has to rebuild Redis for the followers flow first.", "instance 0")
            self._rebuild()

    def watch(self) -> None:
        """The same without anything to apply, so that Redis is made ready while nobody follows anybody."""
        if self._settings.flow_instance == 0:
            self.make_ready()

    def _rebuild(self) -> None:
        started = time.monotonic()
        _log.warning("followers and recent posts are missing from Redis: building them from the database")
        chosen = self._limits
        self.performer.run(readiness.rebuild(chosen.followers_chunk, chosen.celebrity_threshold, chosen.timeline_cap))
        REBUILDS.inc()
        _log.info("followers and recent posts are built", seconds=round(time.monotonic() - started, 3))


def build() -> Dataflow:
    """The flow."""
    settings = get_settings()
    kept = Followers(settings)
    dataflow = Dataflow(NAME)
    records = op.input("source", dataflow, KafkaSource(FLOWS[NAME], group_of(NAME)))
    steps = decode_changes("decode", records, NAME, convert=step, wait_until_visible=kept.performer.wait_until_visible)
    output("followers", steps, BatchSink(kept.apply, group_of(NAME)))
    on_pulse(kept.watch)
    return dataflow


flow = build
