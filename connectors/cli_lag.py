"""`fanline lag`: how far flows and connectors are behind, in one table."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from connectors.backlog import Backlog, Behind
from connectors.capture import Capture, Captures, slots, unreachable
from connectors.flows import EVERY_FLOW, flows_of
from fanline.database import connect
from fanline.errors import DependencyUnavailable
from fanline.settings import Settings, get_settings


@click.command()
@click.argument("flows", nargs=-1, type=click.Choice(list(EVERY_FLOW)))
@click.option("--partitions", is_flag=True, help="A line a partition, not a topic.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every partition.")
def lag(flows: tuple[str, ...], partitions: bool, as_json: bool) -> None:
    """Show how far FLOWS (all unless named) and the connectors are behind."""
    settings = get_settings()
    backlog = Backlog(settings)
    try:
        behind = backlog.measure(flows or tuple(flows_of(settings.database_dialect)))
    finally:
        backlog.close()
    captures = captures_of(settings)
    if as_json:
        report = {"flows": [asdict(each) for each in behind], "connectors": [asdict(each) for each in captures]}
        click.echo(json.dumps(report, indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(table(behind if partitions else by_topic(behind), captures, partitions))


def captures_of(settings: Settings) -> Sequence[Capture]:
    """The connectors and their slots; what does not answer is left out or said in the reason."""
    with connect(settings, autocommit=True) as connection:
        found = slots(connection)
    captures = Captures(settings)
    try:
        return captures.look(found)
    except DependencyUnavailable as error:
        return unreachable(settings, error, found)
    finally:
        captures.close()


def by_topic(behind: Iterable[Behind]) -> list[Behind]:
    """One entry a flow and topic: records added up, seconds of the partition that is furthest behind."""
    totals: dict[tuple[str, str], Behind] = {}
    for each in behind:
        known = totals.get((each.flow, each.topic))
        totals[each.flow, each.topic] = (
            each
            if known is None
            else Behind(
                each.flow,
                each.topic,
                -1,
                known.committed + each.committed,
                known.end + each.end,
                known.records + each.records,
                max(known.seconds, each.seconds),
            )
        )
    return list(totals.values())


def table(behind: Sequence[Behind], captures: Sequence[Capture], partitions: bool) -> Table:
    """Flows, then connectors."""
    made = Table(box=None, pad_edge=False)
    for heading in ("reader", "of", "applied", "end", "behind", "seconds", "state"):
        made.add_column(heading, justify="left" if heading in ("reader", "of", "state") else "right")
    for each in behind:
        of = f"{each.topic} [{each.partition}]" if partitions else each.topic
        state = "[green]up to date[/]" if not each.records else "[yellow]behind[/]"
        numbers = (f"{each.committed:,}", f"{each.end:,}", f"{each.records:,}", f"{each.seconds:.1f}")
        made.add_row(each.flow, of.replace("[", r"\["), *numbers, state)
    for capture in captures:
        late = "" if capture.behind_bytes is None else f"{capture.behind_bytes / 1024:,.0f} KiB"
        colour = "green" if capture.state == "RUNNING" and set(capture.tasks) == {"RUNNING"} else "red"
        state = f"[{colour}]{capture.state.lower()}[/]" + (f": {capture.reason}" if capture.reason else "")
        made.add_row(capture.name, f"slot {capture.slot}", "", "", late, "", state)
    return made
