"""Row changes in runs: what `connectors/decode.py` does, for records that follow each other at once where they can."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

import bytewax.operators as op
from bytewax.dataflow import Stream

from connectors.dead_letter import DeadLetters
from connectors.decode import Change, ChangeDecoder
from connectors.kafka_source import Item
from connectors.present import PresentRows
from connectors.record_columns import columns_of
from connectors.record_runs import Records
from fanline.addresses import registry_url
from fanline.avro import AvroDecoder, SchemaRegistry
from fanline.change_columns import RowChanges, row_changes
from fanline.settings import Settings, get_settings

# A run takes numpy and Arrow as long as so many of its records take one by one.
RUN_RECORDS = 32


class RunChanges(NamedTuple):
    """Row changes that follow each other in a partition."""

    partition: int
    changes: RowChanges


def decode_runs(
    step_id: str,
    up: Stream[Item | Records],
    flow: str,
    convert: Callable[[Change], Any],
    convert_run: Callable[[RunChanges], Any | None],
    wait_until_visible: Callable[[Collection[int]], None],
    settings: Settings | None = None,
) -> Stream[Any]:
    """Decode a stream as `decode_changes` does, runs of records at once.

    `convert_run` turns a run into one item, or gives None where `convert` has to see each of its changes.
    """
    settings = settings or get_settings()
    decoder = AvroDecoder(SchemaRegistry(registry_url(settings)).schema)
    step = RunDecoder(
        decoder, DeadLetters(flow, settings), convert, convert_run, wait_until_visible, PresentRows(settings)
    )
    return op.flat_map_batch(step_id, up, step)


class RunDecoder(ChangeDecoder):
    """Decodes batches; a run with a flaw, or with a change that is no matter of course, is decoded change by change."""

    def __init__(
        self,
        decoder: AvroDecoder,
        dead_letters: DeadLetters,
        convert: Callable[[Change], Any],
        convert_run: Callable[[RunChanges], Any | None],
        wait_until_visible: Callable[[Collection[int]], None] | None = None,
        present: PresentRows | None = None,
    ) -> None:
        super().__init__(decoder.decode, dead_letters, convert, wait_until_visible, present)
        self._schema_of, self._convert_run = decoder.schema, convert_run

    def singly(self, items: Sequence[Any], made: list[Any]) -> Iterable[Item]:
        """Everything that is not taken at once."""
        for item in items:
            if type(item) is not Records:
                yield item
            elif (found := self._at_once(item)) is None:
                yield from item
            else:
                self.dead_letters.brake.accepted(len(item))
                made.append(found)

    def _at_once(self, records: Records) -> Any | None:
        if len(records) < RUN_RECORDS or (columns := columns_of(records, self._schema_of)) is None:
            return None
        changes = row_changes(self.table(records.topic), columns)
        made = None if changes is None else self._convert_run(RunChanges(records.partition, changes))
        if changes is not None and made is not None:
            self.transactions.update(changes.transactions.tolist())
            # What has no transaction has 0.
            self.transactions.discard(0)
        return made
