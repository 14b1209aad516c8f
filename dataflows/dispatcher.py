"""dispatcher: keeps the inboxes of those who read notifications equal to the database.

cdc.notifications, cdc.markers -> the rows that have changed -> what they are now -> Redis (readmodels/inbox.py). Of
people whom cdc.users shows to be gone the inboxes go as well.
"""

from collections.abc import Sequence
from uuid import UUID

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.decode import Change, decode_changes
from connectors.flows import FLOWS, group_of
from connectors.kafka_source import KafkaSource
from dataflows.effects import Performer
from fanline.settings import get_settings
from readmodels import inbox
from readmodels.inbox import Changed
from sinks.batch import BatchSink
from sinks.single_part import output

NAME = "dispatcher"


def changed(item: Change) -> Changed | UUID | None:
    """The row whose change an inbox has to show, or who has left; None for markers of other timelines."""
    row = item.change.row
    if item.change.table == "users":
        return UUID(row["id"]) if item.change.op == "d" else None
    if item.change.table == "markers":
        return Changed(UUID(row["user_id"]), 0) if row["timeline"] == "notifications" else None
    return Changed(UUID(row["user_id"]), row["id"])


def build() -> Dataflow:
    """The flow."""
    settings = get_settings()
    performer = Performer(settings, NAME)
    cap, slack = settings.notifications_cap, settings.notifications_slack

    def apply(changes: Sequence[Changed | UUID]) -> None:
        rows = [change for change in changes if isinstance(change, Changed)]
        departed = [change for change in changes if isinstance(change, UUID)]
        performer.each((inbox.MODEL,), lambda: inbox.apply(rows, cap, slack, departed))

    dataflow = Dataflow(NAME)
    records = op.input("source", dataflow, KafkaSource(FLOWS[NAME], group_of(NAME)))
    changes = decode_changes("decode", records, NAME, convert=changed, wait_until_visible=performer.wait_until_visible)
    output("inboxes", changes, BatchSink(apply, group_of(NAME)))
    return dataflow


flow = build
