"""cards: keeps cards, polls and viewers' relations equal to the database (readmodels/documents.py).

cdc.users, cdc.posts, cdc.follows, cdc.blocks, cdc.mutes, cdc.media, cdc.polls, cdc.poll_votes -> the documents that
each change affects (readmodels/affected.py) -> one query a kind and a batch -> Redis.
"""

from collections.abc import Sequence
from functools import partial

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.decode import Change, decode_changes
from connectors.flows import FLOWS, group_of
from connectors.kafka_source import KafkaSource
from dataflows.effects import Performer
from fanline.addresses import public_url
from fanline.settings import get_settings
from readmodels import documents
from readmodels.affected import affected
from readmodels.documents import Reference
from sinks.batch import BatchSink
from sinks.single_part import output

NAME = "cards"


def made_stale(item: Change) -> set[Reference]:
    """The documents that a change makes stale."""
    return affected(item.change.table, item.change.row)


def build() -> Dataflow:
    """The flow."""
    settings = get_settings()
    performer = Performer(settings, NAME)
    url = public_url(settings)

    def apply(stale: Sequence[set[Reference]]) -> None:
        references = set().union(*stale)
        for model in {kind.model for kind, _ in references}:
            of_model = [reference for reference in references if reference[0].model == model]
            performer.each((model,), partial(documents.refresh, of_model, url))

    dataflow = Dataflow(NAME)
    records = op.input("source", dataflow, KafkaSource(FLOWS[NAME], group_of(NAME)))
    stale = decode_changes("decode", records, NAME, convert=made_stale, wait_until_visible=performer.wait_until_visible)
    output("documents", stale, BatchSink(apply, group_of(NAME)))
    return dataflow


flow = build
