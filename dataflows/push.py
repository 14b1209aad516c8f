"""push: sends notifications to the browsers and telephones that asked for them (Web Push).

notification.dispatched -> a pending delivery for each subscription that wants it -> the courier, which encrypts and
sends (sinks/push.py).
"""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit
from uuid import UUID

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.events import decode_events
from connectors.flows import group_of, topics_of
from connectors.kafka_source import KafkaSource
from dataflows.courier import IN_FLIGHT, Courier, CourierSink, Parcel, Row, Rows, newer_than
from dataflows.effects import Performer
from fanline.addresses import public_url
from fanline.settings import Settings, get_settings
from fanline.vapid import INSERT_KEY, SELECT_KEY, VapidKey, new_private_key, subject_of
from readmodels import push
from readmodels.channel_deliveries import Channel
from readmodels.effects import Effects, Query
from sinks.outcome import Outcome
from sinks.push import PushSender
from sinks.single_part import output

NAME = "push"


class PushCarrier:
    """Web Push as the courier sees it."""

    channel: Channel = "push"
    whole = False
    in_flight = IN_FLIGHT

    def __init__(self, settings: Settings) -> None:
        self._settings, self._url = settings, public_url(settings)
        self._key: VapidKey | None = None
        self._sender: PushSender | None = None

    async def open(self, rows: Rows) -> None:
        """Take the key."""
        text = self._settings.vapid_private_key.get_secret_value()
        while not text:
            found = await rows(Query(SELECT_KEY, {}))
            if found:
                text = found[0]["private_key"]
            else:
                await rows(Query(INSERT_KEY + " RETURNING kid", {"private_key": new_private_key()}))
        self._key = VapidKey(text)
        self._sender = PushSender(
            self._key,
            subject_of(self._settings, self._url),
            allow_private=self._settings.push_private_endpoints,
            ttl_seconds=push.TTL_SECONDS,
        )

    async def pack(self, claimed: Mapping[UUID, Sequence[Row]], rows: Rows) -> list[Parcel]:
        """One message a target."""
        attempts = {(row["notification_id"], target): row["attempts"] for target, [row] in claimed.items()}
        found = await rows(push.messages([identifier for identifier, _ in attempts], list(claimed)))
        return [
            Parcel(
                row["target"],
                (row["notification_id"],),
                attempts[row["notification_id"], row["target"]],
                urlsplit(row["endpoint"]).netloc,
                (row["endpoint"], row["key_p256dh"], row["key_auth"], push.payload(row, self._url, self._token(row))),
            )
            for row in found
            if (row["notification_id"], row["target"]) in attempts
        ]

    def _token(self, row: Row) -> str | None:
        """The access token with which the subscription was made; None if it was before tokens were kept."""
        assert self._key is not None
        return row["sealed_token"] and self._key.unseal(row["sealed_token"])

    async def send(self, parcel: Parcel) -> Outcome:
        """Send it."""
        assert self._sender is not None
        return await self._sender.send(*parcel.content)

    async def gone(self, parcel: Parcel, rows: Rows) -> None:
        """The subscription has expired."""
        await rows(push.remove(parcel.target))

    async def extra(self, rows: Rows) -> None:
        """Nothing else."""

    async def close(self) -> None:
        """Close the connections."""
        if self._sender is not None:
            await self._sender.close()


def enqueue(ids: Sequence[int]) -> Effects[bool]:
    """Makes the deliveries; whether there are any."""
    return bool((yield push.enqueue(ids)))


def build() -> Dataflow:
    """The flow."""
    settings = get_settings()
    performer = Performer(settings, NAME)
    courier = Courier(PushCarrier(settings), settings)

    def make(ids: Sequence[int]) -> bool:
        return performer.run(enqueue(ids))

    dataflow = Dataflow(NAME)
    records = op.input("source", dataflow, KafkaSource(topics_of(NAME), group_of(NAME)))
    ids = decode_events(
        "decode", records, NAME, convert=newer_than(push.FRESH_DAYS), wait_until_recorded=performer.wait_until_recorded
    )
    output("deliveries", ids, CourierSink(make, group_of(NAME), courier, name="deliveries"))
    return dataflow


flow = build
