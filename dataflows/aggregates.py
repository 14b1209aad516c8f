"""aggregates: keeps the time series equal to the database (readmodels/aggregates.py).

cdc.posts, cdc.likes, cdc.follows, cdc.users -> the minutes and accounts that each change makes stale
(readmodels/aggregate_changes.py) -> counted again together, at most once a second -> Redis.
"""

import time

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.decode import Change, decode_changes
from connectors.flows import FLOWS, group_of
from connectors.kafka_source import KafkaSource
from dataflows.effects import Performer
from fanline.settings import get_settings
from readmodels.aggregate_changes import Mark, Stale, mark, settle
from readmodels.aggregates import MODEL, retention
from sinks.coalescing import CoalescingSink
from sinks.single_part import output

NAME = "aggregates"


def marked(item: Change) -> Mark | None:
    """What a change makes stale."""
    return mark(item.change.table, item.change.op, item.change.row)


def build() -> Dataflow:
    """The flow."""
    settings = get_settings()
    performer = Performer(settings, NAME)
    kept = retention(settings.aggregates_minutes_days, settings.aggregates_hours_days, settings.aggregates_days_days)
    sink = CoalescingSink(
        Stale,
        Stale.add,
        lambda stale: performer.each((MODEL,), lambda: settle(stale, int(time.time()), kept)),
        group_of(NAME),
        seconds=settings.aggregates_seconds,
        share=settings.aggregates_share,
    )
    dataflow = Dataflow(NAME)
    records = op.input("source", dataflow, KafkaSource(FLOWS[NAME], group_of(NAME)))
    marks = decode_changes("decode", records, NAME, convert=marked, wait_until_visible=performer.wait_until_visible)
    output("time-series", marks, sink)
    return dataflow


flow = build
