"""search: keeps the indexes of people and public posts equal to the database (readmodels/search.py).

cdc.users, cdc.posts, cdc.likes, cdc.follows -> the documents that each batch makes stale -> one query a kind -> bulk
requests of versioned documents (sinks/opensearch.py). Where there is no index yet it is built from the database first.
"""

from collections.abc import Callable, Iterator
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from connectors.decode import Change, decode_changes
from connectors.flows import FLOWS, group_of
from connectors.kafka_source import KafkaSource
from connectors.messages import Progress
from dataflows.effects import Performer
from dataflows.search_rebuild import build_missing
from fanline.settings import get_settings
from readmodels.indexed import IndexWrite
from readmodels.search import Stale, refresh
from sinks.opensearch import OpenSearchSink
from sinks.opensearch_client import OpenSearchClient
from sinks.single_part import output

NAME = "search"


def checked(item: Change) -> Change:
    """The change; raises what makes it a dead letter when its row lacks what search needs."""
    Stale.nothing().add(item.change.table, item.change.op, item.change.row)
    return item


def to_writes(performer: Performer, prefix: str) -> Callable[[list[Any]], Iterator[IndexWrite | Progress]]:
    """The step that makes a batch of changes into writes, followed by the batch's progress."""

    def step(items: list[Any]) -> Iterator[IndexWrite | Progress]:
        stale = Stale.nothing()
        progress = []
        for item in items:
            if type(item) is Progress:
                progress.append(item)
            else:
                stale.add(item.change.table, item.change.op, item.change.row, item.message)
        for effects in refresh(stale, prefix):
            yield from performer.run(effects)
        yield from progress

    return step


def build() -> Dataflow:
    """The flow."""
    settings = get_settings()
    performer = Performer(settings, NAME)
    client = OpenSearchClient(settings)
    build_missing(settings, performer, client)
    dataflow = Dataflow(NAME)
    records = op.input("source", dataflow, KafkaSource(FLOWS[NAME], group_of(NAME)))
    changes = decode_changes("decode", records, NAME, convert=checked, wait_until_visible=performer.wait_until_visible)
    writes = op.flat_map_batch("documents", changes, to_writes(performer, settings.search_prefix))
    output("indexes", writes, OpenSearchSink(lambda: client, group_of(NAME)))
    return dataflow


flow = build
