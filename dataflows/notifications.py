"""notifications: stores who is to be told of what, and says so in `notification.dispatched`.

Domain events (and `cdc.blocks`) -> where to look -> what is there now, decided by the recipients' policies -> rows and
their events in one transaction (readmodels/notification_rows.py). The first instance also looks for polls that end.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.events import Event, decode_events
from connectors.flows import FLOWS, group_of
from connectors.kafka_source import KafkaSource
from connectors.lifecycle import on_pulse
from connectors.record_decoder import patiently
from dataflows.effects import Performer
from fanline.metrics import NOTIFICATIONS
from fanline.settings import Settings, get_settings
from readmodels import notification_rows as rows
from readmodels.notification_rules import Hint, Look, hints
from schemas.registry import EventEncoder, encoder
from sinks.single_part import output
from sinks.sql import SqlSink, SqlTransactions

NAME = "notifications"

# Somebody who has voted waits for the result: about a second is at once.
POLL_SECONDS = 1.0

Found = tuple[Sequence[Hint], int | None]
"""Where a record says to look, and the transaction of a row change."""


def found(event: Event) -> Found | None:
    """Where to look after a record; None where nothing can be."""
    told = hints(event.name, event.fields)
    return (told, event.fields.get("__source_txId")) if told else None


@dataclass(slots=True)
class Work:
    """What has to be written for a batch."""

    look: Look
    prepared: rows.Prepared
    wanted: Sequence[tuple[int, str]]
    """Posts that any number of people may have to be told of."""


class Notifications:
    """What the flow does with a batch: `read` on the flow's thread, `write` on the sink's."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.performer = Performer(settings, NAME)
        self._writer = SqlTransactions(settings, NAME)
        self._polls = SqlTransactions(settings, f"{NAME}-polls")
        self._encoder: EventEncoder | None = None
        self._looked = float("-inf")

    def read(self, batch: Sequence[Found]) -> Work:
        """What a batch tells of and is there now."""
        look = Look()
        for told, _ in batch:
            look.note(told)
        transactions = {transaction for _, transaction in batch if transaction is not None}
        if transactions:
            self.performer.wait_until_visible(transactions)
        prepared = rows.prepare(self.performer.run(rows.find(look)), self._encode)
        return Work(look, prepared, self.performer.run(rows.wanted(look)))

    def write(self, work: Work) -> None:
        """Writes it; repeating it changes nothing."""
        # What was read may have gone meanwhile: then it is read again, in the transaction.
        first = iter([partial(rows.store, work.look, work.prepared, self._encode)])
        again = partial(rows.record, work.look, (), self._encode)
        NOTIFICATIONS.inc(self._writer.run(lambda: next(first, again)()))
        for post_id, kind in work.wanted:
            self._tell_all(self._writer, post_id, kind)

    def end_polls(self) -> None:
        """Tells everybody concerned of the polls that have ended; for the first instance, and at most once a second."""
        if self._settings.flow_instance or time.monotonic() - self._looked < POLL_SECONDS:
            return
        self._looked = time.monotonic()
        while ended := self._polls.run(rows.ended_polls):
            for poll in ended:
                self._tell_all(self._polls, poll.post_id, "poll")
            self._polls.run(partial(rows.polls_told, ended[-1]))

    def _tell_all(self, transactions: SqlTransactions, post_id: int, kind: str) -> None:
        after = UUID(int=0)
        while told := transactions.run(partial(rows.recipients, post_id, kind, after)):
            NOTIFICATIONS.inc(transactions.run(partial(rows.record, Look(), told, self._encode)))
            after = told[-1].user_id

    def _encode(self, name: str, event: dict[str, Any]) -> bytes:
        if self._encoder is None:
            self._encoder = patiently(encoder, self._settings)
        return self._encoder.encode(name, event)


def build() -> Dataflow:
    """The flow."""
    notifications = Notifications(get_settings())
    dataflow = Dataflow(NAME)
    records = op.input("source", dataflow, KafkaSource(FLOWS[NAME], group_of(NAME)))
    wait = notifications.performer.wait_until_recorded
    looks = decode_events("decode", records, NAME, convert=found, wait_until_recorded=wait)
    output("rows", looks, SqlSink(notifications.read, notifications.write, group_of(NAME)))
    on_pulse(notifications.end_polls)
    return dataflow


flow = build
