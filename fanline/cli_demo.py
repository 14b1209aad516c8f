"""`fanline demo`."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fanline.settings import Settings


@click.command()
@click.option(
    "--graph",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Edge list, `follower followee` a line, may be gzipped; without it a scale-free network is grown.",
)
@click.option("--people", type=click.IntRange(min=2), help="People of the grown network.  [default: 1000]")
@click.option("--follows", type=click.IntRange(min=1), help="Follows of the grown network.  [default: 20 a person]")
@click.option("--posts", type=click.IntRange(min=1), default=1_000, show_default=True, help="Posts to write over REST.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True, help="Posts/s.")
@click.option("--keep", is_flag=True, help="Leave the system running at the end even if the demo started it.")
def demo(graph: Path | None, people: int | None, follows: int | None, posts: int, rate: float, keep: bool) -> None:
    """Start everything, load a network, post as its people, and compare every timeline with SQL.

    What did not run before is stopped again at the end. The people stay in the database: a second run posts as them.
    """
    from rich.console import Console

    from audit.compare import is_equal
    from audit.stores import Stores
    from demo.load import source
    from demo.run import last_line
    from demo.run import run as run_demo
    from fanline.cli_audit import as_table
    from fanline.logging import configure_logging
    from fanline.settings import get_settings

    configure_logging("demo", level="error")
    settings, console = get_settings(), Console()
    chosen = source(graph, people, follows, 0, None)
    ran_before = _is_running(settings)
    _fanline("up")
    try:
        stores = Stores(settings)
        try:
            result = asyncio.run(run_demo(settings, stores, chosen, posts, rate, console))
        finally:
            stores.close()
    finally:
        if not ran_before and not keep:
            console.print("stopping what the demo started")
            _fanline("down", quiet=True)
    if is_equal(result.report) and not result.outcome.failures:
        console.print(last_line(result), highlight=False, soft_wrap=True)
        return
    console.print(as_table(result.report), highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"failed: {len(result.outcome.failures):,} writes were not taken,"
        f" {result.report['timelines'].checked - result.report['timelines'].equal:,} timelines differ from SQL",
        highlight=False,
    )
    raise SystemExit(1)


def _is_running(settings: "Settings") -> bool:
    """Whether any part of the local system runs already."""
    from stack import status
    from stack.layout import Layout

    report = status.collect(Layout(settings))
    parts = [*report["servers"], *report["dataflows"], report["api"]]
    return any(part["pid"] is not None for part in parts)


def _fanline(command: str, *, quiet: bool = False) -> None:
    """Run a subcommand in a process of its own, which shows its own progress and handles Ctrl-C itself."""
    output = subprocess.DEVNULL if quiet else None
    code = subprocess.run([sys.executable, "-m", "fanline.cli", command], stdout=output, check=False).returncode
    if code:
        raise SystemExit(code)
