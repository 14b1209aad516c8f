"""A warm home timeline over REST: `python -m benchmarks.home`.

Twenty hydrated statuses a read, from timelines of 800 entries, by fifty people in turn. A Postgres and a Valkey of its
own hold the data, `python -m api` serves it on one core, and the load comes from this process on another. The last line
is one JSON object: p50 and p99 in ms at one connection, requests/s a core at eight (requests by the API process's CPU
time), SQL statements and Redis round trips a read, and the same for a handler that answers "ok".
"""

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import psycopg

from api.database import Database
from api.effects import run
from api.redis_client import RedisAddress, RedisClient
from audit.visitors import admitted
from benchmarks.http_load import Load, request_bytes, run_load
from benchmarks.report import finish, run_benchmark
from benchmarks.servers import free_port, postgres, valkey, wait_until
from fanline.database import open_async_pool
from fanline.settings import Settings
from readmodels import readiness

AUTHORS = 300
VIEWERS = 50
FOLLOWS = 100
POSTS = 3_000
PAGE = 20
WARM_UP_SECONDS = 2.0
SECONDS = 6.0
TEXT = (
    "The river is a strong brown god, sullen, untamed and intractable, patient to some degree, at first recognised "
    "as a frontier; useful, untrustworthy, as a conveyor of commerce. #river https://example.com/the-dry-salvages"
)


def fill(connection: psycopg.Connection[Any]) -> list[UUID]:
    """Write the network; the viewers."""
    rng = random.Random(1)
    people = [UUID(int=rng.getrandbits(128), version=4) for _ in range(AUTHORS + VIEWERS)]
    authors, viewers = people[:AUTHORS], people[AUTHORS:]
    with connection.transaction(), connection.cursor() as cursor:
        with cursor.copy("COPY users (id, username, display_name, note) FROM STDIN") as copy:
            for number, person in enumerate(people):
                copy.write_row((person, f"person{number}", f"Person {number}", "Writes about rivers and #boats."))
        with cursor.copy("COPY follows (follower_id, followee_id) FROM STDIN") as copy:
            for viewer in viewers:
                for author in rng.sample(authors, FOLLOWS):
                    copy.write_row((viewer, author))
        first = 1_700_000_000_000 << 16
        with cursor.copy("COPY posts (id, author_id, text, created_at, repost_of_id) FROM STDIN") as copy:
            for number in range(POSTS):
                post_id = first + (number * 60_000 << 16)
                created = 1_700_000_000 + number * 60
                original = first + (rng.randrange(number) * 60_000 << 16) if number % 10 == 9 else None
                # A repost of a repost does not exist, and nobody reposts a post twice.
                if original is not None and ((original - first) // (60_000 << 16)) % 10 == 9:
                    original = None
                text = "" if original is not None else f"{number}: {TEXT}"
                copy.write_row((post_id, rng.choice(authors), text, datetime.fromtimestamp(created, UTC), original))
    return viewers


@contextmanager
def process(core: int, *command: str, environment: dict[str, str] | None = None) -> Iterator[psutil.Process]:
    """A process on one core for as long as the block runs."""
    started = subprocess.Popen(
        [sys.executable, *command], env=os.environ | (environment or {}), stdout=subprocess.DEVNULL
    )
    try:
        found = psutil.Process(started.pid)
        found.cpu_affinity([core])
        yield found
    finally:
        started.terminate()
        started.wait()


def get(port: int, path: str) -> str:
    """The body of a GET."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        body: bytes = answer.read()
        return body.decode()


def counters(port: int) -> dict[str, float]:
    """The API's counters by name, with labels as they are written."""
    lines = (line for line in get(port, "/metrics").splitlines() if line and not line.startswith("#"))
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def cpu_seconds(server: psutil.Process) -> float:
    """CPU time that a process has taken."""
    times = server.cpu_times()
    return times.user + times.system


def measured(server: psutil.Process, port: int, requests: list[bytes], connections: int) -> tuple[Load, float]:
    """A load, and the requests that one core would have answered a second."""
    run_load(port, requests, connections, WARM_UP_SECONDS)
    before = cpu_seconds(server)
    load = run_load(port, requests, connections, SECONDS)
    return load, round(load.requests / (cpu_seconds(server) - before), 1)


async def make_ready(settings: Settings, url: str) -> None:
    """Build followers and recent posts as the followers flow does."""
    pool = await open_async_pool(settings)
    redis = RedisClient(RedisAddress.from_url(url))
    try:
        rebuild = readiness.rebuild(settings.followers_chunk, settings.celebrity_threshold, settings.timeline_cap)
        await run(rebuild, redis, Database(pool).rows)
    finally:
        await redis.close()
        await pool.close()


def main() -> dict[str, Any]:
    """Start everything, measure, and give the figures."""
    cores = sorted(os.sched_getaffinity(0))
    api_core, load_core = cores[0], cores[-1]
    os.sched_setaffinity(0, {load_core})  # inherited by the servers that are started from here
    with tempfile.TemporaryDirectory() as folder, postgres() as settings, valkey(Path(folder)) as redis:
        database_url = settings.database_url.get_secret_value()
        port, ok_port = free_port(), free_port()
        public_url = f"http://127.0.0.1:{port}"
        environment = {
            "FANLINE_DATABASE_URL": database_url,
            "FANLINE_REDIS_URL": redis.url,
            "FANLINE_API_PORT": str(port),
            "FANLINE_RATE_LIMIT": "1000000000",
            "FANLINE_LOG_LEVEL": "warning",
        }
        with (
            psycopg.connect(database_url, autocommit=True) as connection,
            process(api_core, "-m", "api", environment=environment) as api,
        ):
            viewers = fill(connection)
            connection.execute("ANALYZE")
            asyncio.run(make_ready(settings, redis.url))
            wait_until(lambda: bool(get(port, "/health/live")), "The API")
            with admitted(connection, viewers, "Home benchmark", public_url) as tokens:
                requests = [request_bytes(f"/api/v1/timelines/home?limit={PAGE}", tokens[v]) for v in viewers]
                wait_until(lambda: all_warm(port, requests), "Every timeline")
                api_figures = figures(api, port, requests)
        with process(api_core, "-c", f"from benchmarks.ok_handler import serve; serve({ok_port})") as ok:
            wait_until(lambda: get(ok_port, "/ok") == "ok", "The handler that answers ok")
            one, core_at_one = measured(ok, ok_port, [request_bytes("/ok")], 1)
            _, core_at_eight = measured(ok, ok_port, [request_bytes("/ok")], 8)
    return finish(
        "home",
        **api_figures,
        ok_p50_ms=one.percentile_ms(0.5),
        ok_p99_ms=one.percentile_ms(0.99),
        ok_requests_per_second_per_core_at_one=core_at_one,
        ok_requests_per_second_per_core=core_at_eight,
    )


def all_warm(port: int, requests: list[bytes]) -> bool:
    """Read every timeline once; whether all of them came from Redis."""
    name = 'fanline_home_reads_total{reason="warm",source="redis"}'
    before = counters(port).get(name, 0.0)
    for request in requests:
        run_load(port, [request], 1, 0.001)
    return counters(port).get(name, 0.0) - before >= len(requests)


def figures(api: psutil.Process, port: int, requests: list[bytes]) -> dict[str, Any]:
    """What the API does for a warm read."""
    run_load(port, requests, 1, WARM_UP_SECONDS)
    before = counters(port)
    one, core_at_one = measured(api, port, requests, 1)
    eight, core_at_eight = measured(api, port, requests, 8)
    after = counters(port)

    def a_read(name: str) -> float:
        reads = sum(after[key] - before.get(key, 0.0) for key in after if key.startswith("fanline_home_reads_total"))
        return round((after[name] - before[name]) / reads, 4)

    return {
        "value": one.percentile_ms(0.5),
        "unit": "ms",
        "p50_ms": one.percentile_ms(0.5),
        "p99_ms": one.percentile_ms(0.99),
        "sql_per_read": a_read("fanline_sql_statements_total"),
        "redis_round_trips_per_read": a_read("fanline_redis_round_trips_total"),
        "requests_per_second_per_core": core_at_eight,
        "requests_per_second_per_core_at_one": core_at_one,
        "p50_ms_at_eight": eight.percentile_ms(0.5),
        "p99_ms_at_eight": eight.percentile_ms(0.99),
        "body_bytes": one.body_bytes,
    }


if __name__ == "__main__":
    run_benchmark(main)
