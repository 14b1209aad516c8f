"""Runs of records decoded at once: the columns of each field of their schema."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from connectors.record_decoder import patiently
from connectors.record_runs import DELETED, Records
from fanline.avro import HEADER
from fanline.avro_columns import UnsupportedSchema, decode
from fanline.errors import MalformedEvent


def columns_of(records: Records, schema_of: Callable[[int], Any]) -> pa.RecordBatch | None:
    """The columns of a run without a flaw; None unless every record has a value that fits the first one's schema.

    `schema_of` gives the parsed schema of an id (`AvroDecoder.schema`). Raises `DependencyUnavailable` when the process
    is asked to stop while the registry is away.
    """
    framing = records.values[0][: HEADER.size]
    number = schema_id(framing)
    if number is None or records.sizes.min() == DELETED:
        return None
    try:
        batch, bad = decode(patiently(schema_of, number), records.values, framing, records.sizes)
    except (MalformedEvent, UnsupportedSchema):
        return None
    return None if bad.any() else batch


def schema_id(framing: bytes | None) -> int | None:
    """The number of the schema in the first bytes of a value; None if it is not framed as Avro."""
    return int.from_bytes(framing[1:]) if framing and len(framing) == HEADER.size and framing[0] == 0 else None
