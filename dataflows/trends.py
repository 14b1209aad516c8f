"""trends: counts who uses hashtags and posts, and ranks what rises (readmodels/trends.py, readmodels/trend_ranking.py).

cdc.posts, cdc.likes -> sets of accounts in Redis; every few seconds, by one instance, the rankings of what they say.
Rows, not events: only they tell of edits and of what goes with a deleted account. When Redis has lost the sets, the
first instance counts them again from the database (readmodels/trend_marks.py).
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
from fanline.logging import get_logger
from fanline.settings import Settings, get_settings
from readmodels import trend_marks, trends
from readmodels.trend_ranking import Terms, publish
from sinks.batch import BatchSink
from sinks.single_part import output

NAME = "trends"

# Ranking takes a tenth of the flow's time at most, however much is used.
PAUSES = 9

# How soon it is seen that Redis has lost what was counted.
LOOK_SECONDS = 1.0
# Counting it again goes on for so long at a time, and lets what has just happened pass in between.
TURN_SECONDS = 0.05

_log = get_logger(__name__)


def reading(clock: Clock) -> Callable[[Change], trends.Fact]:
    """The step that says what a change means for trends; raises what makes it a dead letter."""

    def read(item: Change) -> trends.Fact:
        change = item.change
        return trends.fact(change.table, change.op, change.row, clock.now_ms())

    return read


def applied(performer: Performer, clock: Clock) -> Callable[[Sequence[trends.Fact]], None]:
    """What applies a batch of changes."""

    def apply(facts: Sequence[trends.Fact]) -> None:
        performer.run(trends.apply(trends.Changes(facts, clock.now_ms())))

    return apply


class Counter:
    """Counts everything again when Redis has lost some of it."""

    def __init__(self, performer: Performer, clock: Clock) -> None:
        self._performer, self._clock = performer, clock
        self._place: trend_marks.Place | None = None
        self._due = 0.0
        self._began = 0.0

    @property
    def is_counting(self) -> bool:
        """Whether something is still missing."""
        return self._place is not None

    def pulse(self) -> None:
        """Look, now and then, whether something is missing; count for a while if it is."""
        started = time.monotonic()
        if self._place is None and started >= self._due:
            self._look()
            self._due = time.monotonic() + LOOK_SECONDS
        while self._place is not None and time.monotonic() < started + TURN_SECONDS:
            self._place = self._performer.run(trend_marks.go_on(self._place, self._clock.now_ms()))
            if self._place is None:
                _log.info("trends are counted", seconds=round(time.monotonic() - self._began, 3))

    def _look(self) -> None:
        if self._performer.run(trend_marks.are_counted()):
            return
        _log.warning("what trends is missing from Redis: counting it again from the database")
        self._began = time.monotonic()
        self._place = self._performer.run(trend_marks.begin(self._clock.now_ms()))


class Ranker:
    """Ranks when it is time to, and everything is counted; until then the API ranks by the database."""

    def __init__(self, performer: Performer, settings: Settings, clock: Clock, counter: Counter) -> None:
        self._performer, self._settings, self._clock, self._counter = performer, settings, clock, counter
        self._due = 0.0

    def pulse(self) -> None:
        """Rank, if it is time to."""
        if self._counter.is_counting or time.monotonic() < self._due:
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
        counter = Counter(performer, clock)
        on_pulse(counter.pulse)
        on_pulse(Ranker(performer, settings, clock, counter).pulse)
    dataflow = Dataflow(NAME)
    records = op.input("source", dataflow, KafkaSource(FLOWS[NAME], group_of(NAME)))
    changes = decode_changes(
        "decode", records, NAME, convert=reading(clock), wait_until_visible=performer.wait_until_visible
    )
    output("uses", changes, BatchSink(applied(performer, clock), group_of(NAME)))
    return dataflow


flow = build
