"""The first step of a flow over row changes: Kafka records to `Change` items, bad ones to the dead letters."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import bytewax.operators as op
from bytewax.dataflow import Stream

from connectors.dead_letter import DeadLetters
from connectors.kafka_source import Item
from connectors.messages import UNUSABLE, Message, Replayed
from connectors.present import PresentRows
from connectors.record_decoder import RecordDecoder, patiently
from fanline.addresses import registry_url
from fanline.avro import AvroDecoder, SchemaRegistry
from fanline.changes import RowChange, table_of
from fanline.cockroach import change_in
from fanline.errors import MalformedEvent
from fanline.settings import Settings, get_settings


class Change(NamedTuple):
    """A row change and the record that it came in."""

    message: Message
    change: RowChange


def decode_changes(
    step_id: str,
    up: Stream[Item],
    flow: str,
    settings: Settings | None = None,
    convert: Callable[[Change], Any] | None = None,
    wait_until_visible: Callable[[Collection[int]], None] | None = None,
) -> Stream[Any]:
    """Decode a stream of records and progress, in its order; tombstones are dropped.

    `convert` turns each `Change` into what the flow works with, or None to drop it; without it changes are passed on.
    `wait_until_visible` is given the transactions of a batch and returns when queries see what they have committed.
    Changes that were rejected and sent back come as facts of now (connectors/present.py).
    Records that cannot be understood, `convert` included, become dead letters of `flow`, delivered before anything
    of their batch or after is passed on. Raises `DeadLetterBrake` when there are too many.
    """
    settings = settings or get_settings()
    decoder = AvroDecoder(SchemaRegistry(registry_url(settings)).schema)
    step = ChangeDecoder(
        decoder.decode, DeadLetters(flow, settings), convert, wait_until_visible, PresentRows(settings)
    )
    return op.flat_map_batch(step_id, up, step)


class ChangeDecoder(RecordDecoder):
    """Decodes batches; waits while the registry is away, and until queries see the batch's transactions.

    The arguments are those of `decode_changes`; `present` makes facts of now of changes that were sent back.
    """

    def __init__(
        self,
        decode: Callable[[bytes], dict[str, object]],
        dead_letters: DeadLetters,
        convert: Callable[[Change], Any] | None = None,
        wait_until_visible: Callable[[Collection[int]], None] | None = None,
        present: Callable[[RowChange], RowChange] | None = None,
    ) -> None:
        super().__init__(dead_letters)
        self._patiently, self._convert = partial(patiently, decode), convert
        self._wait_until_visible, self._present = wait_until_visible, present
        self._tables: dict[str, str] = {}
        self.transactions: set[int] = set()

    def item(self, message: Message, value: bytes) -> Any:
        """The change in a record, converted."""
        late = isinstance(message, Replayed)
        row = change_in(self.table(message.topic), value, message.key, self._patiently, late=late)
        if row is None:
            return None
        if self._present is not None and late:
            # A row must not come back that a record before this one has deleted.
            self.wait()
            row = patiently(self._present, row)
        change = Change(message, row)
        made = self._made(change)
        if change.change.transaction is not None:
            self.transactions.add(change.change.transaction)
        return made

    def table(self, topic: str) -> str:
        """The table whose changes a topic has."""
        table = self._tables.get(topic)
        if table is None:
            table = self._tables[topic] = table_of(topic)
        return table

    def wait(self) -> None:
        """Returns when queries see what the batch's transactions have committed."""
        transactions, self.transactions = self.transactions, set()
        if transactions and self._wait_until_visible is not None:
            self._wait_until_visible(transactions)

    def _made(self, change: Change) -> Any:
        if self._convert is None:
            return change
        try:
            return self._convert(change)
        except UNUSABLE as error:
            raise MalformedEvent(f"The change of {change.change.table} cannot be used: {error!r}.") from error
