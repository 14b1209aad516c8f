"""`fanline audit`."""

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from audit.compare import Tally

COLUMNS = ("checked", "equal", "missing", "extra", "duplicate", "out_of_order")


@click.command()
@click.option("--sample", type=click.IntRange(min=1), help="Compare this many people and posts; without it, all.")
@click.option("--prefix", default="", help="Only people whose usernames begin so, and their posts.")
@click.option("--depth", type=click.IntRange(min=1), default=1_000, show_default=True, help="Entries of a timeline.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, a key a read model.")
@click.option("--wait/--no-wait", default=True, help="Wait for the pipeline to pass what is committed.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=120.0, show_default=True, help="Seconds to wait at most."
)
@click.option("--always", is_flag=True, help="Look at a sample every few seconds, repair what differs, and never end.")
def audit(sample: int | None, prefix: str, depth: int, as_json: bool, wait: bool, timeout: float, always: bool) -> None:
    """Compare the read models with SQL; exits with 1 on any difference.

    Timelines are compared as read over REST and as they lie in Redis. What differs is looked at again after
    the pipeline has caught up, so that writes may go on meanwhile. With --always the settings FANLINE_AUDIT_* say how
    much is looked at, and /metrics tells what was found.
    """
    if always:
        _always()
        return
    from audit.compare import is_equal
    from audit.pipeline import waiter
    from audit.run import audit as run
    from audit.run import choose
    from audit.stores import Stores
    from fanline.logging import configure_logging
    from fanline.settings import get_settings

    configure_logging("audit", level="warning")
    settings = get_settings()
    stores = Stores(settings)
    try:
        subjects = choose(stores, sample, prefix)
        report = asyncio.run(run(settings, stores, subjects, waiter(settings, timeout if wait else None), depth=depth))
    finally:
        stores.close()
    click.echo(json.dumps(as_dictionary(report)) if as_json else as_table(report))
    if not is_equal(report):
        raise SystemExit(1)


def _always() -> None:
    import signal
    import threading

    from audit.always import run
    from fanline.addresses import audit_metrics_port
    from fanline.logging import configure_logging
    from fanline.settings import get_settings

    configure_logging("audit")
    settings, stop = get_settings(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run(settings, stop, audit_metrics_port(settings))


def as_dictionary(report: Mapping[str, "Tally"]) -> dict[str, dict[str, object]]:
    """The report as `--json` prints it."""
    return {
        name: {column: getattr(tally, column) for column in COLUMNS} | {"examples": tally.examples}
        for name, tally in report.items()
    }


def as_table(report: Mapping[str, "Tally"]) -> str:
    """The report as lines of text, with examples of what differs."""
    width = max(map(len, report))
    lines = [" " * width + "".join(f"{column.replace('_', ' '):>14}" for column in COLUMNS)]
    for name, tally in report.items():
        lines.append(f"{name:<{width}}" + "".join(f"{getattr(tally, column):>14,}" for column in COLUMNS))
        lines += [f"  {example}" for example in tally.examples]
    return "\n".join(lines)
