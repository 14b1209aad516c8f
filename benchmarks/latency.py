"""From POST to a follower's feed over REST: `python -m benchmarks.latency`.

Fifty posts a second by 100 authors with 100 followers each, all of whose timelines are warm; some posts are followed
through every stage (demo/journey.py). The system must be running. Prints the stages and, as its last line, one JSON
object with `p50_ms` and `p99_ms`.
"""

import asyncio
import random
from typing import Any
from uuid import UUID

from api.context import public_url_of
from audit.pipeline import waiter
from audit.rest import HomeReader
from audit.stores import Stores
from audit.visitors import admitted
from benchmarks.report import finish, run_benchmark
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
# Caches, connections and the JVM's compiler settle before anything is counted.
WARM_UP_POSTS = 250


def network() -> Graph:
    """Authors are numbered first, then readers; every author has exactly the same number of followers."""
    chance = random.Random(1)
    names = [f"author{number}" for number in range(AUTHORS)] + [f"reader{number}" for number in range(READERS)]
    readers = range(AUTHORS, AUTHORS + READERS)
    follows = [(reader, author) for author in range(AUTHORS) for reader in chance.sample(readers, FOLLOWERS_EACH)]
    return Graph(names, follows)


async def measure(settings: Settings, stores: Stores) -> Posted:
    """Load, warm up, and post."""
    graph, wait = network(), waiter(settings, BARRIER_SECONDS)
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


def main() -> dict[str, Any]:
    """Measure and report."""
    settings = get_settings()
    stores = Stores(settings)
    try:
        posted = asyncio.run(measure(settings, stores))
    finally:
        stores.close()
    summary = summarise(posted.journeys)
    if summary is None or posted.outcome.failures:
        return finish("latency", error="; ".join(posted.outcome.failures[:3]) or "no post arrived")
    stages: dict[str, Any] = {
        name: {"p50_ms": round(p50, 1), "p99_ms": round(p99, 1)} for name, (p50, p99) in summary.stages.items()
    }
    redis_p50, redis_p99 = posted.figures.redis_ms(50), posted.figures.redis_ms(99)
    if redis_p50 is not None and redis_p99 is not None:
        stages["redis_within_dataflow"] = {"p50_ms": round(redis_p50, 1), "p99_ms": round(redis_p99, 1)}
    return finish(
        "latency",
        value=round(summary.p50_ms, 1),
        unit="ms",
        p50_ms=round(summary.p50_ms, 1),
        p99_ms=round(summary.p99_ms, 1),
        posts=len(posted.outcome.acknowledged),
        followed=summary.journeys,
        lost=sum(journey.visible is None for journey in posted.journeys),
        deliveries=posted.deliveries,
        stages=stages,
    )


if __name__ == "__main__":
    run_benchmark(main)
