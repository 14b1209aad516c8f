"""The columns that every event's rows have besides its own."""

import pyarrow as pa

RECORD_COLUMNS: tuple[pa.Field, ...] = (
    pa.field("kafka_partition", pa.int32()),
    pa.field("kafka_offset", pa.int64()),
    pa.field("kafka_timestamp", pa.timestamp("ms", "UTC")),
    pa.field("kafka_key", pa.string()),
    pa.field("event_id", pa.string()),
)
"""Where the record was, and the id of the event: of the outbox row, the same when Debezium has sent a row twice."""
