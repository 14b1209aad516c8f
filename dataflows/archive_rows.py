"""Domain events as rows of the archive: the columns of each event's own schema, and where its record was."""

from collections.abc import Iterable, Sequence
from itertools import compress, groupby
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.dead_letter import DeadLetters
from connectors.messages import Message
from connectors.record_columns import columns_of, schema_id
from connectors.record_decoder import patiently
from connectors.record_runs import Headers, Records
from fanline.avro import HEADER, AvroDecoder, MalformedAvro
from fanline.avro_columns import UnsupportedSchema, decode
from fanline.errors import MalformedEvent
from readmodels.archive_schema import RECORD_COLUMNS

# The header with the outbox row's id: equal in both records of an event that the connector has sent twice.
ID_HEADER = "id"


class ArchiveRows:
    """Makes rows of records; those that cannot be understood become dead letters, delivered before it returns.

    Raises `DeadLetterBrake` when there are too many, and `DependencyUnavailable` when the process is asked to stop
    while the registry is away.
    """

    def __init__(self, decoder: AvroDecoder, dead_letters: DeadLetters) -> None:
        self._decoder, self._dead_letters = decoder, dead_letters

    def __call__(self, messages: Sequence[Message]) -> pa.Table | None:
        """The rows of records of one topic, in order; None when there is none."""
        if isinstance(messages, Records) and (batch := self._at_once(messages)) is not None:
            return pa.Table.from_batches([batch])
        batches: list[pa.RecordBatch] = []
        rejected = False
        try:
            # Producers of two versions may write side by side; each record has the columns of its own.
            for framing, run in groupby(messages, _framing):
                batch, bad = self._rows(schema_id(framing), list(run))
                if batch is not None:
                    batches.append(batch)
                rejected = rejected or bad
        finally:
            if rejected:
                self._dead_letters.flush()
        tables = [pa.Table.from_batches([batch]) for batch in batches]
        return pa.concat_tables(tables, promote_options="default") if tables else None

    def _at_once(self, records: Records) -> pa.RecordBatch | None:
        """The rows of a run without a flaw; None unless every record has a value that fits the first one's schema."""
        batch = columns_of(records, self._decoder.schema)
        if batch is None:
            return None
        self._dead_letters.brake.accepted(len(records))
        places = _places(
            np.full(len(records), records.partition, np.int32),
            records.offsets,
            records.timestamps_ms,
            records.keys,
            _event_ids(records.headers),
        )
        return _with_places(places, batch)

    def _rows(self, number: int | None, messages: list[Message]) -> tuple[pa.RecordBatch | None, bool]:
        known = [message for message in messages if message.value is not None]
        if not known:
            return None, False
        try:
            if number is None:
                raise MalformedAvro("The record is not framed as Avro.")
            schema: Any = patiently(self._decoder.schema, number)
            values = [message.value or b"" for message in known]
            batch, bad = decode(schema, values, values[0][: HEADER.size])
        except UnsupportedSchema as error:
            return self._rejected(known, MalformedAvro(f"Schema {number} cannot be archived: {error}"))
        except MalformedEvent as error:
            return self._rejected(known, error)
        if bad.any():
            for message in compress(known, bad):
                self._dead_letters.reject(message, self._reason(message))
            known = list(compress(known, ~bad))
            batch = batch.filter(pa.array(~bad))
        self._dead_letters.brake.accepted(len(known))
        places = _places(
            [message.partition for message in known],
            [message.offset for message in known],
            [message.timestamp_ms for message in known],
            [message.key for message in known],
            _event_ids(message.headers for message in known),
        )
        return _with_places(places, batch), bool(bad.any())

    def _rejected(self, messages: Sequence[Message], reason: MalformedEvent) -> tuple[None, bool]:
        for message in messages:
            self._dead_letters.reject(message, reason)
        return None, True

    def _reason(self, message: Message) -> MalformedEvent:
        try:
            self._decoder.decode(message.value or b"")
        except MalformedEvent as error:
            return error
        return MalformedAvro("The record does not fit its schema.")


def _framing(message: Message) -> bytes | None:
    return message.value[: HEADER.size] if message.value is not None else None


def _places(*columns: Any) -> list[pa.Array]:
    return [_array(values, column.type) for values, column in zip(columns, RECORD_COLUMNS, strict=True)]


def _with_places(places: list[pa.Array], batch: pa.RecordBatch) -> pa.RecordBatch:
    wanted = pa.schema([*RECORD_COLUMNS, *batch.schema])
    return pa.RecordBatch.from_arrays([*places, *batch.columns], schema=wanted)


def _event_ids(of_records: Iterable[Headers]) -> list[bytes | None]:
    found: list[bytes | None] = []
    for headers in of_records:
        for name, value in headers:
            if name == ID_HEADER:
                found.append(value)
                break
        else:
            found.append(None)
    return found


def _array(values: Any, wanted: pa.DataType) -> pa.Array:
    if wanted != pa.string():
        return pa.array(values, wanted)
    found = pa.array(values, pa.binary())
    try:
        return found.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([None if value is None else value.decode(errors="replace") for value in found.to_pylist()])
