"""archive: every domain event as a row of a Parquet file (readmodels/archive.py).

Topics of all contracts -> records -> rows, bad records to the dead letters -> files in a folder or S3.
"""

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.dead_letter import DeadLetters
from connectors.flows import FLOWS, group_of
from connectors.generations import generations
from connectors.kafka_source import KafkaSource
from dataflows.archive_rows import ArchiveRows
from fanline.addresses import registry_url
from fanline.avro import AvroDecoder, SchemaRegistry
from fanline.settings import get_settings
from readmodels.archive import GENERATION_CHARACTERS
from sinks.parquet import ParquetSink
from sinks.parquet_store import open_store
from sinks.single_part import output

NAME = "archive"


def build() -> Dataflow:
    """The flow."""
    settings = get_settings()
    decoder = AvroDecoder(SchemaRegistry(registry_url(settings)).schema)
    sink = ParquetSink(
        lambda: open_store(settings),
        ArchiveRows(decoder, DeadLetters(NAME, settings)),
        generations(settings, f"fanline-{NAME}-topics", GENERATION_CHARACTERS),
        group_of(NAME),
        rows=settings.archive_file_rows,
        seconds=settings.archive_file_seconds,
    )
    dataflow = Dataflow(NAME)
    records = op.input("source", dataflow, KafkaSource(FLOWS[NAME], group_of(NAME), resume="committed"))
    output("files", records, sink)
    return dataflow


flow = build
