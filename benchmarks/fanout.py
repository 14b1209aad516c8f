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
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from benchmarks.flow_runs import flush, info, metric, metrics_url, must_run, pipelined, running
from benchmarks.own_stack import own_stack
from benchmarks.records import POSTS_SCHEMA, as_change, post_row, write_changes
from benchmarks.report import finish, run_benchmark
from benchmarks.servers import Valkey, valkey
from connectors.topics import ensure_topics
from fanline.ids import TimeOrderedIds, pack_id
from fanline.redis_nodes import RedisNodes
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
FLOW, TOPIC = "timelines", "cdc.posts"
FUNCTIONS = Path(followers.__file__).parent / "functions"

# Twelve decimal digits at the end, so that redis-benchmark's __rand_int__ makes the very same keys.
READERS = [UUID(f"00000000-0000-4000-8000-{number:012d}") for number in range(PEOPLE)]


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
    ensure_topics(get_settings())
    write_changes(TOPIC, POSTS_SCHEMA, changes(authors))


def changes(authors: list[UUID]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Posts of the authors in turn."""
    ids, now = TimeOrderedIds(), datetime.now(UTC).isoformat()
    for number in range(POSTS):
        post_id = ids.next()
        row = post_row(post_id, authors[number % AUTHORS], now)
        yield str(post_id), as_change(row, (number, number), None)


def deliver(server: Valkey, environment: dict[str, str]) -> dict[str, Any]:
    """Runs the flow until every post is delivered; the clock runs from the first delivery to the last."""
    nodes = connect(server)
    expected = POSTS * FOLLOWERS
    commands_before = commands(nodes)
    metrics = metrics_url(FLOW, environment)
    first = last = 0.0
    done_first = done = 0.0
    with running(FLOW, environment) as flow:
        while done < expected:
            must_run(flow)
            found = metric(metrics, "fanline_deliveries_total")
            now = time.perf_counter()
            if found and not done_first:
                first, done_first = now, found
            done, last = found, now
            time.sleep(0.02)
        sql = metric(metrics, "fanline_sql_statements_total")
        pushes = metric(metrics, "fanline_batch_size_sum")
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
    turns = ((payloads[number % len(payloads)], 1_000) for number in range(1_000))
    rate = 1_000_000 / pipelined(nodes, turns)
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
    return int(info(nodes, "used_memory"))


def commands(nodes: RedisNodes) -> int:
    """Commands that the server has run, those inside functions among them."""
    return int(info(nodes, "total_commands_processed"))


if __name__ == "__main__":
    run_benchmark(main)
