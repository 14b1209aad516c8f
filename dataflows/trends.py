"""trends: counts who uses hashtags and posts, and ranks what rises (readmodels/trends.py, readmodels/trend_ranking.py).

cdc.posts, cdc.likes -> sets of accounts in Redis; every few seconds, by one instance, the rankings of what they say.
Rows, not events: only they tell of edits and of what goes with a deleted account.
"""

import time
from collections.abc import Callable, Sequence

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.decode import Change, decode_changes
from connectors.flows import FLOWS, group_of
from connectors.kafka_source import KafkaSource
from connectors.lifecycle import on_pulse
from dataflows.effects import Performer
from fanline.clock import Clock, SystemClock
from fanline.settings import Settings, get_settings
from readmodels import trends
from readmodels.trend_ranking import Terms, publish
from sinks.batch import BatchSink
from sinks.single_part import output

NAME = "trends"

# Ranking takes a tenth of the flow's time at most, however much is used.
PAUSES = 9


def counting(clock: Clock) -> Callable[[Change], trends.Changes]:
    """The step that says what a change means for trends; raises what makes it a dead letter."""

    def count(item: Change) -> trends.Changes:
        changes = trends.Changes.nothing()
        changes.add(item.change.table, item.change.op, item.change.row, clock.now_ms())
        return changes

    return count


def applied(performer: Performer) -> Callable[[Sequence[trends.Changes]], None]:
    """What applies a batch of changes."""

    def apply(items: Sequence[trends.Changes]) -> None:
        together = trends.Changes.nothing()
        for item in items:
            together.posts |= item.posts
            together.uses += item.uses
        performer.run(trends.apply(together))

    return apply


class Ranker:
    """Ranks when it is time to."""

    def __init__(self, performer: Performer, settings: Settings, clock: Clock) -> None:
        self._performer, self._settings, self._clock = performer, settings, clock
        self._due = 0.0

    def pulse(self) -> None:
        """Rank, if it is time to."""
        if time.monotonic() < self._due:
            return
        terms = Terms(self._clock.now_ms(), self._settings.trends_minimum_accounts, self._settings.trends_account_hours)
        started = time.monotonic()
        self._performer.run(publish(terms))
        ended = time.monotonic()
        self._due = ended + max(self._settings.trends_seconds, (ended - started) * PAUSES)


def build() -> Dataflow:
    """The flow."""
    settings, clock = get_settings(), SystemClock()
    performer = Performer(settings, NAME)
    if settings.flow_instance == 0:
        on_pulse(Ranker(performer, settings, clock).pulse)
    dataflow = Dataflow(NAME)
    records = op.input("source", dataflow, KafkaSource(FLOWS[NAME], group_of(NAME)))
    changes = decode_changes(
        "decode", records, NAME, convert=counting(clock), wait_until_visible=performer.wait_until_visible
    )
    output("uses", changes, BatchSink(applied(performer), group_of(NAME)))
    return dataflow


flow = build
