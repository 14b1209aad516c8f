"""The first step of a flow over row changes: Kafka records to `Change` items, bad ones to the dead letters."""

import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import bytewax.operators as op
from bytewax.dataflow import Stream

from connectors.dead_letter import DeadLetters
from connectors.kafka_source import Item
from connectors.lifecycle import stop_requested
from connectors.messages import Message, Progress
from fanline.addresses import registry_url
from fanline.avro import AvroDecoder, SchemaRegistry
from fanline.changes import RowChange, row_change, table_of
from fanline.errors import DependencyUnavailable, MalformedEvent
from fanline.logging import get_logger
from fanline.settings import Settings, get_settings

REGISTRY_PAUSE_SECONDS = 0.5

_log = get_logger(__name__)


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
    Records that cannot be understood, `convert` included, become dead letters of `flow`, delivered before anything
    of their batch or after is passed on. Raises `DeadLetterBrake` when there are too many.
    """
    settings = settings or get_settings()
    decoder = AvroDecoder(SchemaRegistry(registry_url(settings)).schema)
    step = ChangeDecoder(decoder.decode, DeadLetters(flow, settings), convert, wait_until_visible)
    return op.flat_map_batch(step_id, up, step)


class ChangeDecoder:
    """Decodes batches; waits while the registry, which is asked once a schema, is away."""

    def __init__(
        self,
        decode: Callable[[bytes], dict[str, object]],
        dead_letters: DeadLetters,
        convert: Callable[[Change], Any] | None = None,
        wait_until_visible: Callable[[Collection[int]], None] | None = None,
    ) -> None:
        self._decode, self._dead_letters, self._convert = decode, dead_letters, convert
        self._wait_until_visible = wait_until_visible
        self._tables: dict[str, str] = {}

    def __call__(self, items: list[Item]) -> list[Any]:
        """The changes in a batch, converted, and its progress."""
        changes: list[Any] = []
        transactions: set[int] = set()
        accepted = 0
        rejected = False
        try:
            for item in items:
                if type(item) is Progress:
                    changes.append(item)
                    continue
                assert isinstance(item, Message)
                if item.value is None:
                    continue
                try:
                    change = self._change(item, item.value)
                    made = self._made(change)
                    accepted += 1
                    if change.change.transaction is not None:
                        transactions.add(change.change.transaction)
                    if made is not None:
                        changes.append(made)
                except MalformedEvent as reason:
                    self._dead_letters.brake.accepted(accepted)
                    accepted, rejected = 0, True
                    self._dead_letters.reject(item, reason)
        finally:
            if rejected:
                self._dead_letters.flush()
        self._dead_letters.brake.accepted(accepted)
        if transactions and self._wait_until_visible is not None:
            self._wait_until_visible(transactions)
        return changes

    def _made(self, change: Change) -> Any:
        if self._convert is None:
            return change
        try:
            return self._convert(change)
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            # A column that is missing or of another type: the table has changed in a way that the flow does not know.
            raise MalformedEvent(f"The change of {change.change.table} cannot be used: {error!r}.") from error

    def _change(self, message: Message, value: bytes) -> Change:
        table = self._tables.get(message.topic)
        if table is None:
            table = self._tables[message.topic] = table_of(message.topic)
        waiting = False
        while True:
            try:
                return Change(message, row_change(table, self._decode(value)))
            except DependencyUnavailable as error:
                if stop_requested():
                    raise
                if not waiting:
                    waiting = True
                    _log.warning("waiting for the schema registry", error=str(error))
                time.sleep(REGISTRY_PAUSE_SECONDS)
