"""From POST to a follower's feed over REST: `python -m benchmarks.latency`.

Fifty posts a second by 100 authors with 100 followers each, all of whose timelines are warm; some posts are followed
through every stage (demo/journey.py). The system must be running. It is measured as it runs, and then once more with
only the flows of the path, the others being stopped for so long: what the path itself takes, and what sharing the
machine with everything else adds. Prints the stages and, as its last line, one JSON object with `p50_ms` and `p99_ms`
of everything, and under `path_alone` the same of the path.
"""

import asyncio
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from api.context import public_url_of
from audit.rest import HomeReader
from audit.stores import Stores
from audit.visitors import admitted
from benchmarks.report import finish, run_benchmark
from connectors.barrier import Barrier
from connectors.flows import FLOWS, SERVING
from demo.graph import Graph
from demo.journey import summarise
from demo.people import load_graph
from demo.plan import Mix, plan
from demo.posting import Crowd, Posted, post_and_watch
from demo.run import warm
from fanline.settings import Settings, get_settings

RATE = 50.0
SECONDS = 40
AUTHORS = 100
READERS = 1_000
FOLLOWERS_EACH = 100
# Following a post costs its machine a few reads; ten a second are a small share of its work.
JOURNEYS_PER_SECOND = 10.0
BARRIER_SECONDS = 120.0
PATH = ("followers", "timelines", "cards")
# Caches, connections and the JVM's compiler settle before anything is counted.
WARM_UP_POSTS = 2_000


def network() -> Graph:
    """Authors are numbered first, then readers; every author has exactly the same number of followers."""
    chance = random.Random(1)
    names = [f"author{number}" for number in range(AUTHORS)] + [f"reader{number}" for number in range(READERS)]
    readers = range(AUTHORS, AUTHORS + READERS)
    follows = [(reader, author) for author in range(AUTHORS) for reader in chance.sample(readers, FOLLOWERS_EACH)]
    return Graph(names, follows)


async def measure(settings: Settings, stores: Stores, flows: Sequence[str]) -> Posted:
    """Load, warm up, and post; what is waited for are these flows."""
    graph = network()

    async def wait() -> None:
        with Barrier(settings, flows) as barrier:
            await asyncio.to_thread(barrier.wait, BARRIER_SECONDS)

    loaded = load_graph(stores.connection, graph, "latency")
    await wait()
    url = public_url_of(settings)
    with admitted(stores.connection, loaded.ids, "Fanline benchmark", url) as tokens:
        async with HomeReader(url, tokens, 20) as reader:
            people: list[UUID] = loaded.ids
            await warm(stores, reader, people)
            crowd = Crowd(graph, people, set(range(AUTHORS, AUTHORS + READERS)), tokens)
            plain = Mix(replies=0, reposts=0, deletes=0, favourites=0, bookmarks=0, hashtags=0)
            for posts, seed in ((WARM_UP_POSTS, 1), (round(RATE * SECONDS), 2)):
                steps = plan(graph, posts, RATE, writers=range(AUTHORS), seed=seed, mix=plain)
                posted = await post_and_watch(settings, crowd, steps, reader, JOURNEYS_PER_SECOND, wait)
    return posted


@contextmanager
def only_the_path() -> Iterator[None]:
    """The other flows are stopped for as long as the block runs; what they miss waits in Kafka."""
    others = [flow for flow in FLOWS if flow not in PATH]
    _dataflows("stop", others)
    try:
        yield
    finally:
        _dataflows("start", others)


def _dataflows(command: str, flows: Sequence[str]) -> None:
    subprocess.run([sys.executable, "-m", "fanline.cli", "dataflows", command, *flows], check=True, stdout=sys.stderr)


def figures(posted: Posted) -> dict[str, Any]:
    """The figures of a measurement; only `error` when there are none."""
    summary = summarise(posted.journeys)
    if summary is None or posted.outcome.failures:
        return {"error": "; ".join(posted.outcome.failures[:3]) or "no post arrived"}
    stages: dict[str, Any] = {
        name: {"p50_ms": round(p50, 1), "p99_ms": round(p99, 1)} for name, (p50, p99) in summary.stages.items()
    }
    redis_p50, redis_p99 = posted.figures.redis_ms(50), posted.figures.redis_ms(99)
    if redis_p50 is not None and redis_p99 is not None:
        stages["redis_within_dataflow"] = {"p50_ms": round(redis_p50, 1), "p99_ms": round(redis_p99, 1)}
    return {
        "p50_ms": round(summary.p50_ms, 1),
        "p99_ms": round(summary.p99_ms, 1),
        "posts": len(posted.outcome.acknowledged),
        "followed": summary.journeys,
        "lost": sum(journey.visible is None for journey in posted.journeys),
        "deliveries": posted.deliveries,
        "stages": stages,
    }


def main() -> dict[str, Any]:
    """Measure and report."""
    settings = get_settings()
    stores = Stores(settings)
    try:
        everything = figures(asyncio.run(measure(settings, stores, SERVING)))
        print(f"with everything: {everything}")
        with only_the_path():
            alone = figures(asyncio.run(measure(settings, stores, PATH)))
    finally:
        stores.close()
    return finish("latency", value=everything.get("p50_ms"), unit="ms", **everything, path_alone=alone)


if __name__ == "__main__":
    run_benchmark(main)
