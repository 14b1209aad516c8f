"""outbox: the domain events of a CockroachDB; on Postgres Debezium's EventRouter does the same.

cdc.outbox, which a changefeed writes -> events (connectors/outbox.py) -> the topic that each names. It runs only with
FANLINE_DATABASE_DIALECT=cockroach.
"""

from collections.abc import Sequence

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.dead_letter import DeadLetters
from connectors.flows import EVERY_FLOW, group_of
from connectors.kafka_sink import KafkaSink
from connectors.kafka_source import KafkaSource
from connectors.outbox import OutboxDecoder
from fanline.settings import Settings, get_settings
from sinks.single_part import output

NAME = "outbox"


def build(name: str = NAME, topics: Sequence[str] = EVERY_FLOW[NAME], settings: Settings | None = None) -> Dataflow:
    """The flow; the tests run it under another name over a topic of their own."""
    settings = settings or get_settings()
    dataflow = Dataflow(name)
    records = op.input("source", dataflow, KafkaSource(topics, group_of(name), settings))
    events = op.flat_map_batch("decode", records, OutboxDecoder(DeadLetters(name, settings)))
    output("topics", events, KafkaSink(group_of(name), settings))
    return dataflow


flow = build
