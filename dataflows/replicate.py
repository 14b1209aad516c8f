"""replicate: the changes of one database's tables to another, in their order (sinks/replica.py).

replica-<direction>.changes -> rows -> transactions on the target. Not one of the flows of `fanline up`: it runs while a
database is moved (`fanline replicate`, docs/operations/replicate.md).
"""

from collections.abc import Sequence
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.flows import group_of
from connectors.kafka_source import KafkaSource
from connectors.messages import Message
from dataflows.run import run_flow
from fanline.logging import configure_logging
from fanline.replica import Route
from fanline.settings import Settings
from sinks import replica
from sinks.batch import BatchSink
from sinks.single_part import output
from sinks.sql import SqlTransactions


def build(route: Route, settings: Settings) -> Dataflow:
    """The flow of a direction."""
    target = SqlTransactions(route.target, route.flow)
    known: dict[str, replica.Table] = {}

    def apply(messages: Sequence[Any]) -> None:
        if not known:
            known.update(target.run(replica.tables))
        records: list[Message] = list(messages)
        target.run(lambda: replica.apply(records, known))

    dataflow = Dataflow(route.flow)
    records = op.input(
        "source", dataflow, KafkaSource([route.changes], group_of(route.flow), settings, resume="committed")
    )
    output("rows", records, BatchSink(apply, group_of(route.flow), name="replica"))
    return dataflow


def run(route: Route, settings: Settings) -> None:
    """Run a direction until SIGTERM or Ctrl-C; raises the typed error that ended it."""
    configure_logging(route.flow)
    run_flow(route.flow, lambda: build(route, settings), settings)
