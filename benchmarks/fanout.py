"""Deliveries a second of one timelines worker, from Kafka to Redis: `python -m benchmarks.fanout`.

Authors with 1,000 followers each post into warm timelines that are full. The posts wait in `cdc.posts` before the
worker starts, so that it is never short of work; in one partition, so that they come in their order, as posts do.
The ceiling is the same operation, RPUSHX of 8 bytes to the same keys on the same server, pipelined by
redis-benchmark (by our own sender where that program is missing), before and after. As posts of one author that wait
together share their commands, the worker can be above it: `ceiling_joined` is RPUSHX of as many entries at a time.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import UUID, uuid4

from confluent_kafka import Producer

from benchmarks.own_stack import own_stack
from benchmarks.report import finish, run_benchmark
from benchmarks.servers import Valkey, valkey
from connectors.kafka_clients import producer_config
from connectors.topics import ensure_topics
from fanline.addresses import registry_url
from fanline.avro import SchemaRegistry, encode, parse
from fanline.ids import TimeOrderedIds, pack_id
from fanline.redis_nodes import RedisNodes
from fanline.resp import pack
from fanline.settings import get_settings
from readmodels import followers, timelines
from readmodels.effects import call
from readmodels.entries import pack_entry
from readmodels.followers import Edge

PEOPLE = 10_000
FOLLOWERS = 1_000
AUTHORS = 200
POSTS = 4_000
PARTITIONS = {"FANLINE_KAFKA_PARTITIONS": "1"}
MEASURED = 1_000_000
FUNCTIONS = Path(followers.__file__).parent / "functions"

# Twelve decimal digits at the end, so that redis-benchmark's __rand_int__ makes the very same keys.
READERS = [UUID(f"00000000-0000-4000-8000-{number:012d}") for number in range(PEOPLE)]

# The columns that the timelines flow reads, as Debezium writes them.
SCHEMA = """{"type": "record", "name": "Value", "namespace": "fanline.public.posts", "fields": [
  {"name": "id", "type": "long"}, {"name": "author_id", "type": "string"}, {"name": "visibility", "type": "string"},
  {"name": "in_reply_to_id", "type": ["null", "long"]}, {"name": "in_reply_to_account_id", "type": ["null", "string"]},
  {"name": "repost_of_id", "type": ["null", "long"]}, {"name": "traceparent", "type": ["null", "string"]},
  {"name": "__deleted", "type": ["null", "string"]}, {"name": "__op", "type": ["null", "string"]},
  {"name": "__source_sequence", "type": ["null", "string"]}, {"name": "__source_ts_ms", "type": ["null", "long"]}]}"""


def main() -> dict[str, Any]:
    """The benchmark."""
    with tempfile.TemporaryDirectory() as folder, valkey(Path(folder)) as server:
        memory = measure_memory(server)
        authors = prepare(server)
        with own_stack("kafka,registry", PARTITIONS) as environment:
            write_posts(authors)
            before = ceiling(server)
            figures = deliver(server, environment | {"FANLINE_REDIS_URL": server.url})
            after = ceiling(server)
            joined = round(figures["deliveries"] / figures["pushes"])
            ceiling_joined = joined * ceiling(server, joined)
    return finish(
        "fanout", value=figures["rate"], unit="deliveries/s", ceiling=round((before + after) / 2),
        ceiling_by="redis-benchmark" if shutil.which("redis-benchmark") else "own pipelined sender",
        ceilings=[before, after], deliveries=figures["deliveries"], entries_per_command=joined,
        ceiling_joined=round(ceiling_joined), ratio_joined=round(figures["rate"] / ceiling_joined, 3),
        redis_commands_per_delivery=figures["commands"], sql_per_delivery=figures["sql"], **memory,
    )  # fmt: skip


def measure_memory(server: Valkey) -> dict[str, float]:
    """Bytes a timeline entry and a follow edge, at 1,000,000 of each, written the way the flows write them."""
    nodes = connect(server)
    ids = TimeOrderedIds()
    empty = used_memory(nodes)
    viewers = [uuid4() for _ in range(MEASURED // 500)]
    for viewer in viewers:
        warm(nodes, viewer)
        entries = [timelines.push(viewer, pack_entry(ids.next(), None)) for _ in range(500)]
        nodes.execute([(push.key, push.data) for push in entries])
    filled = used_memory(nodes)
    flush(nodes)
    empty_again = used_memory(nodes)
    for author in [uuid4() for _ in range(MEASURED // 2_500)]:
        edges = [
            followers.apply(Edge(uuid4(), author, True, 0, (position, position)), get_settings().followers_chunk)
            for position in range(1, 2_501)
        ]
        nodes.execute([(edge.key, edge.data) for edge in edges])
    linked = used_memory(nodes)
    flush(nodes)
    nodes.close()
    return {
        "bytes_per_entry": round((filled - empty) / MEASURED, 2),
        "bytes_per_edge": round((linked - empty_again) / MEASURED, 2),
    }


def prepare(server: Valkey) -> list[UUID]:
    """Warm timelines that are full, so that they have to be cut again and again, and authors with followers."""
    nodes = connect(server)
    for reader in READERS:
        warm(nodes, reader)
    for number in range(get_settings().timeline_cap):
        pushes = [timelines.push(reader, pack_entry(number + 1 << 16, None)) for reader in READERS]
        nodes.execute([(push.key, push.data) for push in pushes], patience=60)
    authors = [uuid4() for _ in range(AUTHORS)]
    for number, author in enumerate(authors):
        chosen = [READERS[(number * 37 + step * 7) % PEOPLE].bytes for step in range(FOLLOWERS)]
        writes = followers.restore(author, chosen, get_settings().followers_chunk, celebrity=False)
        nodes.execute([(write.key, write.data) for write in writes])
    nodes.close()
    return authors


def write_posts(authors: list[UUID]) -> None:
    """The posts, as Debezium would have written them."""
    settings = get_settings()
    ensure_topics(settings)
    schema_id = SchemaRegistry(registry_url(settings)).register("cdc.posts-value", SCHEMA)
    schema, ids = parse(SCHEMA), TimeOrderedIds()
    producer = Producer(producer_config(settings, "benchmark"))
    for number in range(POSTS):
        post_id = ids.next()
        row = dict.fromkeys(("in_reply_to_id", "in_reply_to_account_id", "repost_of_id", "traceparent", "__deleted"))
        row |= {"id": post_id, "author_id": str(authors[number % AUTHORS]), "visibility": "public", "__op": "c"}
        row |= {"__source_sequence": f'["{number}","{number}"]', "__source_ts_ms": time.time_ns() // 1_000_000}
        producer.produce("cdc.posts", encode(schema_id, schema, row), str(post_id))
    producer.flush(30)


def deliver(server: Valkey, environment: dict[str, str]) -> dict[str, Any]:
    """Runs the flow until every post is delivered; the clock runs from the first delivery to the last."""
    nodes = connect(server)
    expected = POSTS * FOLLOWERS
    commands_before = commands(nodes)
    flow = subprocess.Popen([sys.executable, "-m", "dataflows.run", "timelines"], env=environment)
    metrics = f"http://127.0.0.1:{int(environment['FANLINE_FLOWS_METRICS_PORT']) + 1}/metrics"
    first = last = 0.0
    done_first = done = 0
    try:
        while done < expected:
            if flow.poll() is not None:
                raise RuntimeError(f"the flow ended with code {flow.returncode}")
            found = metric(metrics, "fanline_deliveries_total")
            now = time.perf_counter()
            if found and not done_first:
                first, done_first = now, found
            done, last = found, now
            time.sleep(0.02)
        sql = metric(metrics, "fanline_sql_statements_total")
        pushes = metric(metrics, "fanline_batch_size_sum")
    finally:
        flow.terminate()
        flow.wait(30)
    used = commands(nodes) - commands_before
    nodes.close()
    return {
        "rate": round((expected - done_first) / (last - first)),
        "deliveries": expected,
        "pushes": pushes,
        "commands": round(used / expected, 4),
        "sql": sql / expected,
    }


def ceiling(server: Valkey, entries: int = 1) -> float:
    """RPUSHX of so many entries a second that the server takes, pipelined, one connection."""
    key = "t:{00000000-0000-4000-8000-__rand_int__}"
    program = shutil.which("redis-benchmark")
    if program is None:
        return own_ceiling(server, entries)
    arguments = [
        "-p",
        str(server.port),
        "-n",
        str(2_000_000 // entries),
        "-c",
        "1",
        "-P",
        "1000",
        "-r",
        str(PEOPLE),
        "--csv",
    ]
    # Eight bytes that are an older id than any post's, so that the flow's cuts meet lists as they are in production.
    command = ["RPUSHX", key, *["\x01" * 8] * entries]
    done = subprocess.run([program, *arguments, *command], capture_output=True, text=True, check=True)
    trim(server)
    found = re.search(r'^"RPUSHX[^"]*","([0-9.]+)"', done.stdout, re.MULTILINE)
    assert found, done.stdout
    return float(found.group(1))


def own_ceiling(server: Valkey, entries: int) -> float:
    """The same with prepared bytes over one socket."""
    nodes = connect(server)
    payloads = [
        timelines.pushes(
            [timelines.push_prefix(reader.bytes) for reader in READERS[start : start + 1_000]], [pack_id(1)] * entries
        )
        for start in range(0, PEOPLE, 1_000)
    ]
    started = time.perf_counter()
    for number in range(1_000):
        nodes.send(0, payloads[number % len(payloads)], 1_000)
        if number % 16 == 15:
            nodes.collect()
    while nodes.unfinished:
        nodes.collect(0.05)
    rate = 1_000_000 / (time.perf_counter() - started)
    nodes.close()
    trim(server)
    return rate


def trim(server: Valkey) -> None:
    """Cuts every timeline to its cap, so that both ways meet lists of the same length."""
    nodes = connect(server)
    cuts = [timelines.compact(reader, get_settings().timeline_cap) for reader in READERS]
    nodes.execute([(cut.key, cut.data) for cut in cuts], patience=60)
    nodes.close()


def connect(server: Valkey) -> RedisNodes:
    """A connection with the functions loaded."""
    nodes = RedisNodes(server.url)
    nodes.load_functions(FUNCTIONS)
    return nodes


def warm(nodes: RedisNodes, viewer: UUID) -> None:
    """An empty warm timeline."""
    key, token = timelines.timeline_key(viewer), bytes(8)
    steps = [
        call(b"timeline_begin", [key], token, b"generatn", 60),
        call(b"timeline_merge", [key], token, bytes(8), 800, 86_400),
    ]
    nodes.execute([(step.key, step.data) for step in steps])


def used_memory(nodes: RedisNodes) -> int:
    """Bytes that the server's data takes, by its own account."""
    return info(nodes, "used_memory")


def commands(nodes: RedisNodes) -> int:
    """Commands that the server has run, those inside functions among them."""
    return info(nodes, "total_commands_processed")


def info(nodes: RedisNodes, field: str) -> int:
    """A number of INFO."""
    text = nodes.execute([(b"", b"*1\r\n$4\r\nINFO\r\n")])[0].decode()
    found = re.search(rf"^{field}:(\d+)", text, re.MULTILINE)
    assert found
    return int(found.group(1))


def flush(nodes: RedisNodes) -> None:
    """Empties the server."""
    nodes.execute([(b"", pack(b"FLUSHALL", b"SYNC"))], patience=30)


def metric(url: str, name: str) -> int:
    """The sum of a counter of a flow, 0 while the flow is not there yet."""
    try:
        with urlopen(url, timeout=2) as response:
            lines = response.read().decode().splitlines()
    except OSError:
        return 0
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}[ {{]", line)))


if __name__ == "__main__":
    run_benchmark(main)
