"""Queries of the archive with DuckDB: a view a topic, named as the topic.

DuckDB reads through pyarrow's datasets, so that a local folder and S3 are the same to it and no extension has to be
fetched. Columns are pushed down to the files, and from a view of every record conditions too, those on `day` to the
folders. A view that has each event once has to see all records first: what Debezium sends again has the time at which
it is sent, which may be of another day. Days are then chosen as it is opened (`since`, `until`).
"""

from datetime import date
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.types as pat

from fanline import avro
from fanline.avro_columns import arrow_schema
from fanline.errors import FanlineError
from readmodels.archive import current
from readmodels.archive_schema import RECORD_COLUMNS
from schemas import contracts
from sinks.parquet_store import ParquetStore

DAY = pa.field("day", pa.date32())

_IDENTIFIER = '"{}"'
# Debezium sends a row again after a crash; both records are in the archive, with one event id.
_ONCE = """
CREATE VIEW {view} AS SELECT * FROM {records}
QUALIFY event_id IS NULL OR row_number() OVER (PARTITION BY event_id ORDER BY kafka_partition, kafka_offset) = 1
"""


class QueryFailed(FanlineError):
    """DuckDB does not accept or cannot finish a query."""


def schema_of(topic: str, store: ParquetStore) -> pa.Schema | None:
    """The columns of a topic's rows: those of all versions of its contract; without one, of its newest file."""
    contract = contracts.load().get(topic)
    if contract is not None:
        texts = (contract.text, *contract.versions)
        events = pa.unify_schemas([arrow_schema(avro.parse(text)) for text in texts])
        return pa.schema([*RECORD_COLUMNS, *events])
    files = current(store.files(topic))
    return store.read(files[-1]).schema if files else None


def open_archive(
    store: ParquetStore, *, since: date | None = None, until: date | None = None, every_record: bool = False
) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory with a view a topic, over the files that are current now, of the days `since` to `until`.

    A view has an event once though Debezium has sent it twice; with `every_record` it has every record. Raises
    `OSError` when the store does not let it, and `OverlappingFiles`.
    """
    database = duckdb.connect(":memory:")
    for topic in sorted({*contracts.load(), *store.topics()}):
        schema = schema_of(topic, store)
        if schema is None:
            continue
        records = topic if every_record else f"{topic} records"
        database.register(records, _dataset(store, topic, schema, since, until))
        if not every_record:
            names = {"view": _IDENTIFIER.format(topic), "records": _IDENTIFIER.format(records)}
            database.execute(_ONCE.format(**names))
    return database


def query(database: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """The answer of a query; raises `QueryFailed` with DuckDB's own words."""
    try:
        answer = database.sql(sql)
        return pa.table({}) if answer is None else answer.to_arrow_table()
    except duckdb.Error as error:
        raise QueryFailed(f"DuckDB: {str(error).splitlines()[0].rstrip('.')}.") from error


def _dataset(store: ParquetStore, topic: str, schema: pa.Schema, since: date | None, until: date | None) -> Any:
    whole = pa.schema([*map(_in_utc, schema), DAY])
    files = [
        store.path(file)
        for file in current(store.files(topic))
        if (since is None or file.day >= since) and (until is None or file.day <= until)
    ]
    if not files:
        return whole.empty_table()
    return pads.dataset(
        files,
        schema=whole,
        format="parquet",
        filesystem=store.filesystem,
        partitioning=pads.partitioning(pa.schema([DAY]), flavor="hive"),
        partition_base_dir=f"{store.root}/{topic}",
    )


def _in_utc(field: pa.Field) -> pa.Field:
    """Times without a zone, in UTC: DuckDB computes with zones only by an extension that it would have to fetch."""
    return field.with_type(pa.timestamp(field.type.unit)) if pat.is_timestamp(field.type) else field
