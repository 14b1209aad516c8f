"""Posts a plan while the pipeline is watched, until it has passed all of it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import aiohttp

from api.context import public_url_of
from audit.rest import HomeReader
from audit.run import Wait
from demo.figures import Figures, read_figures
from demo.graph import Graph
from demo.journey import Journey
from demo.load import tokens_by_number
from demo.plan import Step
from demo.poster import Outcome, Poster
from demo.tap import PostTap
from demo.watch import Watch
from fanline.settings import Settings

UPDATE_SECONDS = 0.5

Update = Callable[[int, Figures, Sequence[Journey]], None]
"""Is told how many posts are acknowledged, what the flows say, and the ways of posts so far."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """The people of a load, by number in the graph."""

    graph: Graph
    ids: Sequence[UUID]
    readers: set[int]
    """Those who never write, whose feeds are watched."""
    tokens: Mapping[UUID, str]
    usernames: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Posted:
    """What came of it."""

    outcome: Outcome
    figures: Figures
    """What the flows and the API counted meanwhile."""
    journeys: list[Journey]

    @property
    def deliveries(self) -> int:
        """Posts appended to warm timelines."""
        return self.figures.deliveries


async def post_and_watch(
    settings: Settings,
    crowd: Crowd,
    steps: Sequence[Step],
    reader: HomeReader,
    journeys_per_second: float,
    wait: Wait,
    update: Update = lambda posts, figures, journeys: None,
) -> Posted:
    """Send the steps, follow some of their posts, and return when the read models have all of them."""
    with PostTap(settings) as tap:
        watch = Watch(settings, crowd.graph, crowd.ids, crowd.readers, reader, tap, journeys_per_second)
        poster = Poster(
            public_url_of(settings),
            steps,
            tokens_by_number(steps, crowd.ids, crowd.tokens),
            usernames=crowd.usernames,
            on_acknowledged=watch.on_acknowledged,
        )
        async with aiohttp.ClientSession() as session:
            before = await read_figures(session, settings)
            running = asyncio.create_task(poster.run())
            while not running.done():
                figures = since(await read_figures(session, settings), before)
                update(len(poster.outcome.acknowledged), figures, watch.journeys)
                await asyncio.wait([running], timeout=UPDATE_SECONDS)
            outcome = await running
            await watch.finish()
            await wait()
            after = since(await read_figures(session, settings), before)
    return Posted(outcome, after, watch.journeys)


def since(now: Figures, before: Figures) -> Figures:
    """What was counted between two readings; lags are the later ones."""
    return Figures(
        deliveries=now.deliveries - before.deliveries,
        dead_letters=now.dead_letters - before.dead_letters,
        lags=now.lags,
        home_reads={source: count - before.home_reads.get(source, 0) for source, count in now.home_reads.items()},
        redis_seconds={
            bound: count - before.redis_seconds.get(bound, 0.0) for bound, count in now.redis_seconds.items()
        },
    )
