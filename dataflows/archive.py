"""archive: every domain event as a row of a Parquet file (readmodels/archive.py).

Topics of all contracts -> records -> rows, bad records to the dead letters -> files in a folder or S3.
"""

from collections.abc import Sequence

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.dead_letter import DeadLetters
from connectors.flows import FLOWS, group_of
from connectors.generations import generations
from connectors.kafka_runs_source import KafkaRunsSource
from dataflows.archive_rows import ArchiveRows
from fanline.addresses import registry_url
from fanline.avro import AvroDecoder, SchemaRegistry
from fanline.settings import Settings, get_settings
from readmodels.archive import GENERATION_CHARACTERS
from sinks.parquet import ParquetSink, batches
from sinks.parquet_store import open_store
from sinks.single_part import output

NAME = "archive"


def build(name: str = NAME, topics: Sequence[str] = FLOWS[NAME], settings: Settings | None = None) -> Dataflow:
    """The flow; the tests and the benchmark run it under another name over topics of their own."""
    settings = settings or get_settings()
    decoder = AvroDecoder(SchemaRegistry(registry_url(settings)).schema)
    sink = ParquetSink(
        lambda: open_store(settings),
        ArchiveRows(decoder, DeadLetters(name, settings)),
        generations(settings, f"fanline-{name}-topics", GENERATION_CHARACTERS),
        group_of(name),
        rows=settings.archive_file_rows,
        seconds=settings.archive_file_seconds,
    )
    dataflow = Dataflow(name)
    records = op.input("source", dataflow, KafkaRunsSource(topics, group_of(name), settings, resume="committed"))
    output("files", batches("batches", records), sink)
    return dataflow


flow = build
