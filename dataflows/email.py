"""email: mails people what they have not read, as often as they like, if they like.

notification.dispatched -> a pending delivery for everybody who wants digests, due with their next one -> the courier,
which writes one mail a person (readmodels/digest.py). Without a mail server the flow lets its events pass.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.events import decode_events
from connectors.flows import group_of, topics_of
from connectors.kafka_source import KafkaSource
from dataflows.courier import Courier, CourierSink, Parcel, Row, Rows, newer_than
from dataflows.effects import Performer
from fanline.addresses import public_url
from fanline.errors import ConfigurationError
from fanline.logging import get_logger
from fanline.settings import Settings, get_settings
from readmodels import digest
from readmodels.channel_deliveries import Channel
from readmodels.effects import Effects
from sinks.batch import BatchSink
from sinks.outcome import Outcome
from sinks.single_part import output
from sinks.smtp import mail_server

NAME = "email"
# Mail servers take few connections of one client.
IN_FLIGHT = 4
CONFIRMATIONS = 5

_log = get_logger(__name__)


class MailCarrier:
    """E-mail as the courier sees it."""

    channel: Channel = "email"
    whole = True
    in_flight = IN_FLIGHT

    def __init__(self, settings: Settings) -> None:
        self._settings, self._url = settings, public_url(settings)
        self._server = mail_server(settings)
        self._sender = settings.smtp_from or settings.contact_email
        if not self._sender:
            raise ConfigurationError("FANLINE_SMTP_FROM or FANLINE_CONTACT_EMAIL must name the sender of mails.")

    async def open(self, rows: Rows) -> None:
        """Nothing to open: a connection a mail."""

    async def pack(self, claimed: Mapping[UUID, Sequence[Row]], rows: Rows) -> list[Parcel]:
        """One mail a person, of what is still unread."""
        targets = list(claimed)
        ids = [row["notification_id"] for given in claimed.values() for row in given]
        people = {row["user_id"]: row for row in await rows(digest.readers(targets))}
        unread: dict[UUID, list[Row]] = {}
        for row in await rows(digest.unread(ids, list(people))):
            unread.setdefault(row["user_id"], []).append(row)
        now = datetime.now(UTC)
        return [
            Parcel(
                person,
                tuple(row["id"] for row in items),
                max(row["attempts"] for row in claimed[person]),
                self._server.host,
                (
                    digest.digest_mail(
                        people[person],
                        items,
                        instance=self._settings.instance_title,
                        sender=self._sender,
                        public_url=self._url,
                        now=now,
                    ),
                    people[person]["email"],
                ),
            )
            for person, items in unread.items()
        ]

    async def send(self, parcel: Parcel) -> Outcome:
        """Send it."""
        message, recipient = parcel.content
        return await asyncio.to_thread(self._server.send, message, self._sender, recipient)

    async def gone(self, parcel: Parcel, rows: Rows) -> None:
        """There is no such mailbox."""
        await rows(digest.silence(parcel.target))

    async def extra(self, rows: Rows) -> None:
        """Ask people whether an address is theirs."""
        for row in await rows(digest.claim_confirmations(CONFIRMATIONS)):
            mail = digest.confirmation_mail(
                row["email"],
                row["confirmation_token"],
                instance=self._settings.instance_title,
                sender=self._sender,
                public_url=self._url,
                now=datetime.now(UTC),
            )
            outcome = await asyncio.to_thread(self._server.send, mail, self._sender, row["email"])
            if outcome.kind == "retry":
                await rows(digest.ask_again(row["user_id"], self._settings.delivery_retry_seconds))
            elif outcome.kind != "sent":
                _log.warning("an address could not be confirmed", reason=outcome.reason)

    async def close(self) -> None:
        """Nothing is kept open."""


def enqueue(ids: Sequence[int]) -> Effects[bool]:
    """Makes the deliveries; whether there are any."""
    return bool((yield digest.enqueue(ids)))


def build() -> Dataflow:
    """The flow."""
    settings = get_settings()
    performer = Performer(settings, NAME)

    def make(ids: Sequence[int]) -> bool:
        return performer.run(enqueue(ids))

    if settings.smtp_host:
        courier = Courier(MailCarrier(settings), settings)
        sink: BatchSink = CourierSink(make, group_of(NAME), courier, name="deliveries")
    else:
        _log.info("no mail is sent: FANLINE_SMTP_HOST is not set")
        sink = BatchSink(lambda _: None, group_of(NAME), name="deliveries")

    dataflow = Dataflow(NAME)
    records = op.input("source", dataflow, KafkaSource(topics_of(NAME), group_of(NAME)))
    ids = decode_events(
        "decode",
        records,
        NAME,
        convert=newer_than(digest.FRESH_DAYS),
        wait_until_recorded=performer.wait_until_recorded,
    )
    output("deliveries", ids, sink)
    return dataflow


flow = build
