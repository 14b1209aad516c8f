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


def checked(item: Change) -> Change:
    """The change; raises what makes it a dead letter when its row lacks what trends need."""
    trends.Changes.nothing().add(item.change.table, item.change.op, item.change.row, 0)
    return item


def applied(performer: Performer, clock: Clock) -> Callable[[Sequence[Change]], None]:
    """What applies a batch of changes."""

    def apply(items: Sequence[Change]) -> None:
        changes = trends.Changes.nothing()
        now_ms = clock.now_ms()
        for item in items:
            changes.add(item.change.table, item.change.op, item.change.row, now_ms)
        performer.run(trends.apply(changes))

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
        self._performer.run(publish(terms))
        self._due = time.monotonic() + self._settings.trends_seconds


def build() -> Dataflow:
    """The flow."""
    settings, clock = get_settings(), SystemClock()
    performer = Performer(settings, NAME)
    if settings.flow_instance == 0:
        on_pulse(Ranker(performer, settings, clock).pulse)
    dataflow = Dataflow(NAME)
    records = op.input("source", dataflow, KafkaSource(FLOWS[NAME], group_of(NAME)))
    changes = decode_changes("decode", records, NAME, convert=checked, wait_until_visible=performer.wait_until_visible)
    output("uses", changes, BatchSink(applied(performer, clock), group_of(NAME)))
    return dataflow


flow = build
