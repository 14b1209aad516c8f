"""`fanline load`."""

import asyncio
from pathlib import Path

import click


@click.command()
@click.option(
    "--graph",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Edge list, `follower followee` a line, may be gzipped; without it a scale-free network is grown.",
)
@click.option("--people", type=click.IntRange(min=2), help="People of the grown network.  [default: 1000]")
@click.option("--follows", type=click.IntRange(min=1), help="Follows of the grown network.  [default: 20 a person]")
@click.option("--posts", type=click.IntRange(min=0), default=1_000, show_default=True, help="Posts to write over REST.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True, help="Posts/s.")
@click.option("--name", help="Begins the usernames; the same name again adds to the same people.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the network and of what is posted.")
def load(
    graph: Path | None,
    people: int | None,
    follows: int | None,
    posts: int,
    rate: float,
    name: str | None,
    seed: int,
) -> None:
    """Load people and follows by bulk copy, then post over REST as them; the system must be running."""
    from rich.console import Console

    from api.context import public_url_of
    from audit.visitors import admitted
    from demo.load import source, summary_line, tokens_by_number
    from demo.people import load_graph
    from demo.plan import plan
    from demo.poster import Poster
    from demo.progress import Progress
    from fanline import database
    from fanline.logging import configure_logging
    from fanline.settings import get_settings

    configure_logging("load", level="warning")
    settings, console = get_settings(), Console()
    chosen = source(graph, people, follows, seed, name)
    steps = plan(chosen.graph, posts, rate, seed=seed)
    url = public_url_of(settings)
    with database.connect(settings, autocommit=True) as connection:
        with Progress(console) as progress:
            loaded = load_graph(connection, chosen.graph, chosen.name, progress.update)
        console.print(
            f"{len(loaded.ids):,} people ({loaded.new_people:,} new), {len(chosen.graph.follows):,} follows"
            f" ({loaded.new_follows:,} new), {chosen.graph.ignored:,} lines ignored",
            highlight=False,
        )
        if not steps:
            return
        writers = [loaded.ids[number] for number in {step.person for step in steps}]
        with admitted(connection, writers, "Fanline load", url) as tokens:
            poster = Poster(url, steps, tokens_by_number(steps, loaded.ids, tokens))
            outcome = asyncio.run(poster.run())
    console.print(summary_line(outcome), highlight=False, soft_wrap=True)
    for failure in outcome.failures[:5]:
        console.print(f"  {failure}", markup=False, highlight=False, soft_wrap=True)
    if outcome.failures:
        raise SystemExit(1)
