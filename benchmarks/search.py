"""Documents a second of one search worker, from Kafka over SQL to OpenSearch: `python -m benchmarks.search`.

Public posts are in the database and their changes wait in `cdc.posts` before the worker starts. The ceiling is
opensearch-py's bulk helper alone, with the same documents ready in memory, into an index of the same settings on the
same server, before and after. Every run writes into an empty index.
"""

import contextlib
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from confluent_kafka import Producer
from opensearchpy import OpenSearch, helpers

from benchmarks.own_stack import own_stack
from benchmarks.report import finish, run_benchmark
from benchmarks.servers import free_port
from connectors.applied import AppliedOffsets
from connectors.flows import group_of
from connectors.kafka_clients import producer_config
from connectors.topics import ensure_topics
from dataflows.effects import Performer
from dataflows.search_rebuild import rebuild
from fanline.addresses import opensearch_url, registry_url
from fanline.avro import SchemaRegistry, encode, parse
from fanline.database import connect
from fanline.errors import DependencyUnavailable
from fanline.ids import TimeOrderedIds, created_ms
from fanline.settings import get_settings
from readmodels import search
from readmodels.search import POSTS
from sinks.opensearch_client import OpenSearchClient

NUMBER = 20_000
AUTHOR = UUID(int=7)
TEXT = "the river ran over old stones while somebody sang of winter and nobody listened to a word"
WORDS = TEXT.split()
SERVERS = "postgres,valkey,kafka,registry,opensearch,migrate"
# OpenSearch's runner takes ports 9201 to 9299 only.
OPENSEARCH_PORT = 9285

# The columns that the search flow reads, as Debezium writes them.
SCHEMA = """{"type": "record", "name": "Value", "namespace": "fanline.public.posts", "fields": [
  {"name": "id", "type": "long"}, {"name": "author_id", "type": "string"}, {"name": "visibility", "type": "string"},
  {"name": "repost_of_id", "type": ["null", "long"]},
  {"name": "__deleted", "type": ["null", "string"]}, {"name": "__op", "type": ["null", "string"]},
  {"name": "__source_sequence", "type": ["null", "string"]}, {"name": "__source_ts_ms", "type": ["null", "long"]}]}"""


def main() -> dict[str, Any]:
    """The benchmark."""
    ports = {
        "FANLINE_KAFKA_PARTITIONS": "1",
        "FANLINE_OPENSEARCH_PORT": str(OPENSEARCH_PORT),
        "FANLINE_OPENSEARCH_TRANSPORT_PORT": str(free_port()),
    }
    with own_stack(SERVERS, ports) as environment:
        settings = get_settings()
        client, performer = OpenSearchClient(settings), Performer(settings, "benchmark")
        rebuild(settings, performer, client, drop_old=True)
        ids = insert_posts()
        documents = [
            document
            for start in range(0, NUMBER, search.PAGE)
            for document in performer.run(search.load(POSTS, ids[start : start + search.PAGE])).values()
        ]
        ceiling(client, documents)  # warms the server's compiler up
        before = ceiling(client, documents)
        write_changes(ids)
        rate = flow_rate(environment)
        after = ceiling(client, documents)
        found = client.count(POSTS.read_alias(settings.search_prefix))
        performer.close()
        client.close()
    if found != NUMBER:
        return {"name": "search", "error": f"{found} documents of {NUMBER}"}
    return finish(
        "search", value=rate, unit="documents/s", ceiling=round((before + after) / 2), ceilings=[before, after],
        ceiling_by="opensearch-py's bulk helper", documents=NUMBER,
    )  # fmt: skip


def insert_posts() -> list[int]:
    """An author and public posts of some twenty words."""
    make = TimeOrderedIds()
    ids = [make.next() for _ in range(NUMBER)]
    with connect(get_settings(), autocommit=True) as connection:
        connection.execute("INSERT INTO users (id, username) VALUES (%s, 'writer')", [AUTHOR])
        columns = "id, author_id, text, language, created_at"
        with connection.cursor() as cursor, cursor.copy(f"COPY posts ({columns}) FROM STDIN") as copy:
            for number, identifier in enumerate(ids):
                text = " ".join(WORDS[(number * 7 + step * step) % len(WORDS)] for step in range(20)) + f" {number}"
                made = datetime.fromtimestamp(created_ms(identifier) / 1_000, UTC)
                copy.write_row((identifier, AUTHOR, text, "en", made))
        connection.execute("ANALYZE")
    return ids


def write_changes(ids: list[int]) -> None:
    """The posts' changes, as Debezium would have written them."""
    settings = get_settings()
    ensure_topics(settings)
    schema_id = SchemaRegistry(registry_url(settings)).register("cdc.posts-value", SCHEMA)
    schema = parse(SCHEMA)
    producer = Producer(producer_config(settings, "benchmark"))
    for number, identifier in enumerate(ids):
        row = {
            "id": identifier, "author_id": str(AUTHOR), "visibility": "public", "repost_of_id": None,
            "__deleted": None, "__op": "c", "__source_sequence": f'["{number}","{number}"]',
            "__source_ts_ms": time.time_ns() // 1_000_000,
        }  # fmt: skip
        producer.produce("cdc.posts", encode(schema_id, schema, row), str(identifier))
        producer.poll(0)
    producer.flush(30)


def flow_rate(environment: dict[str, str]) -> float:
    """Runs the flow until it has applied every change; the clock runs from its first progress to its last."""
    offsets, group, place = AppliedOffsets(get_settings(), "benchmark"), group_of("search"), ("cdc.posts", 0)
    flow = subprocess.Popen([sys.executable, "-m", "dataflows.run", "search"], env=environment)
    first = done = 0
    started = ended = 0.0
    try:
        while done < NUMBER:
            if flow.poll() is not None:
                raise RuntimeError(f"the flow ended with code {flow.returncode}")
            with contextlib.suppress(DependencyUnavailable):  # the first commit makes Kafka's topic of offsets
                done = offsets.committed({group: [place]})[group][place]
            ended = time.perf_counter()
            if done and not first:
                first, started = done, ended
            time.sleep(0.02)
    finally:
        flow.terminate()
        flow.wait(30)
    return round((NUMBER - first) / (ended - started))


def ceiling(client: OpenSearchClient, documents: list[dict[str, Any]]) -> float:
    """Documents a second of the bulk helper alone."""
    index = "benchmark-ceiling"
    client.delete(index)
    client.create(index, POSTS.index_body())
    helper = OpenSearch(opensearch_url(get_settings()), timeout=60)
    started = time.perf_counter()
    actions = (
        {"_index": index, "_id": document["id"], "version": 1, "version_type": "external_gte", "_source": document}
        for document in documents
    )
    helpers.bulk(helper, actions, chunk_size=search.PAGE, refresh=False)
    rate = len(documents) / (time.perf_counter() - started)
    helper.close()
    client.delete(index)
    return round(rate)


if __name__ == "__main__":
    run_benchmark(main)
