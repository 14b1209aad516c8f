"""The demo on a running system: load, warm up, post, and compare every timeline with SQL."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from rich.console import Console

from api.context import public_url_of
from audit.compare import Tally
from audit.model import Subjects
from audit.pipeline import waiter
from audit.rest import BATCH, HomeReader
from audit.run import DEPTH, audit
from audit.stores import Stores
from audit.visitors import admitted
from demo.figures import Figures
from demo.journey import Summary, summarise
from demo.load import Source, summary_line
from demo.panel import Panel
from demo.people import load_graph
from demo.plan import plan
from demo.poster import Outcome
from demo.posting import Crowd, post_and_watch
from demo.progress import Progress
from demo.showcase import show
from fanline.errors import BarrierTimeout
from fanline.settings import Settings
from readmodels.effects import command
from readmodels.timelines import timeline_key

# One person in ten only reads: their feeds show when a post arrives by way of the read model, as they have no write of
# their own that a read would have to wait for.
READERS_EVERY = 10
JOURNEYS_PER_SECOND = 5.0
# A graph of 430,000 rows takes Debezium about two minutes.
CATCH_UP_SECONDS = 600.0
# Builds take milliseconds each, so that this long without one more means that they have stopped.
STALLED_SECONDS = 20.0


@dataclass(slots=True)
class Result:
    """What the demo found."""

    outcome: Outcome
    deliveries: int
    journeys: Summary | None
    report: dict[str, Tally] = field(default_factory=dict)


async def run(settings: Settings, stores: Stores, chosen: Source, posts: int, rate: float, console: Console) -> Result:
    """Run the demo, telling on `console` what goes on; raises what the servers' absence raises."""

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    graph, url = chosen.graph, public_url_of(settings)
    started = time.monotonic()
    with Progress(console) as progress:
        loaded = load_graph(stores.connection, graph, chosen.name, progress.update)
    say(
        f"loaded {len(loaded.ids):,} people and {len(graph.follows):,} follows"
        f" ({loaded.new_people:,} and {loaded.new_follows:,} of them new) in {time.monotonic() - started:.1f} s"
    )
    wait = waiter(settings, CATCH_UP_SECONDS)
    started = time.monotonic()
    await wait()
    say(f"the read models have them after {time.monotonic() - started:.1f} s more")
    with admitted(stores.connection, loaded.ids, "Fanline demo", url) as tokens:
        async with HomeReader(url, tokens, DEPTH) as reader:
            started = time.monotonic()
            await warm(stores, reader, loaded.ids)
            say(f"read {len(loaded.ids):,} home timelines, which are warm now, in {time.monotonic() - started:.1f} s")
            readers = set(range(0, len(loaded.ids), READERS_EVERY))
            writers = [person for person in range(len(loaded.ids)) if person not in readers]
            steps = plan(graph, posts, rate, writers=writers)
            with Panel(console, posts) as panel:
                crowd = Crowd(graph, loaded.ids, readers, tokens, loaded.usernames)
                posted = await post_and_watch(settings, crowd, steps, reader, JOURNEYS_PER_SECOND, wait, panel.update)
            shown = await show(url, stores, posted.outcome, tokens)
    outcome = posted.outcome
    say(f"wrote {summary_line(outcome)}")
    for failure in outcome.failures[:5]:
        console.print(f"  {failure}", markup=False, highlight=False)
    summary = summarise(posted.journeys)
    for line in journey_lines(summary, posted.figures):
        say(line)
    for line in shown:
        say(line)
    started = time.monotonic()
    with Progress(console) as progress:
        subjects = Subjects(loaded.ids, outcome.posts)
        report = await audit(settings, stores, subjects, wait, progress=progress.update)
    say(f"compared every timeline with SQL in {time.monotonic() - started:.1f} s")
    return Result(outcome, posted.deliveries, summary, report)


def journey_lines(summary: Summary | None, figures: Figures) -> list[str]:
    """The stages of the posts' ways as lines of text; the stage dataflow is told with Redis' share of it."""
    if summary is None or not summary.stages:
        return []
    ways = {stage: f"{stage} {p50:.0f}/{p99:.0f}" for stage, (p50, p99) in summary.stages.items()}
    redis_p50, redis_p99 = figures.redis_ms(50), figures.redis_ms(99)
    if redis_p50 is not None and redis_p99 is not None:
        ways["dataflow"] += f" (of which Redis {redis_p50:.1f}/{redis_p99:.1f})"
    return [f"a post's way, p50/p99 ms of {summary.journeys} posts: {', '.join(ways.values())}"]


def last_line(result: Result) -> str:
    """The line that the demo ends with when everything is equal."""
    timelines = result.report["timelines"]
    way = result.journeys
    latency = f"p50 {way.p50_ms:.0f} ms p99 {way.p99_ms:.0f} ms" if way else "not measured"
    return (
        f"ok: {len(result.outcome.acknowledged):,} posts, {result.deliveries:,} deliveries,"
        f" {timelines.equal:,} timelines equal to SQL, POST to feed {latency}"
    )


async def warm(stores: Stores, reader: HomeReader, people: Sequence[UUID]) -> None:
    """Read every home timeline once, and wait until Redis keeps them all; raises `BarrierTimeout` when that stalls."""
    for start in range(0, len(people), BATCH):
        await asyncio.gather(*(reader.home(person, depth=20) for person in people[start : start + BATCH]))
    commands = [command(timeline_key(person), b"EXISTS") for person in people]
    most, moved = -1, time.monotonic()
    while (warm := sum(await asyncio.to_thread(stores.redis, commands))) < len(people):
        if warm > most:
            most, moved = warm, time.monotonic()
        if time.monotonic() - moved > STALLED_SECONDS:
            raise BarrierTimeout(f"Only {warm:,} of {len(people):,} home timelines became warm.")
        await asyncio.sleep(0.05)
