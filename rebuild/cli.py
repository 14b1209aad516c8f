"""`fanline rebuild`."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import click
from click.core import ParameterSource
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from audit.models import Subjects
from audit.pipeline import waiter
from audit.run import Wait, choose
from audit.stores import Stores
from fanline.errors import ConfigurationError
from fanline.logging import configure_logging
from fanline.settings import get_settings
from rebuild import otherwise, run
from rebuild.lease import Lease, alone
from rebuild.models import Rebuildable, rebuildable
from rebuild.state import BUILD, COMPARE, KEPT, State, load

WAIT_SECONDS = 300.0


@click.command()
@click.argument("model", required=False)
@click.option("--sample", type=click.IntRange(min=1), help="Compare this many people and posts; without it, all.")
@click.option("--prefix", default="", help="Compare only people whose usernames begin so, and their posts.")
@click.option("--switch/--no-switch", "switches", default=True, help="Let the new generation serve when it is equal.")
@click.option("--keep-hours", type=click.FloatRange(min=0), default=24.0, show_default=True,
              help="How long to keep the old generation for a rollback.")  # fmt: skip
@click.option("--rollback", is_flag=True, help="Let the generation from before the switch serve again.")
@click.option("--free", "frees", is_flag=True, help="Delete the generation that does not serve, finished or not.")
@click.option("--status", "shows", is_flag=True, help="Show the generations and how far a rebuild has come.")
@click.pass_context
def rebuild(
    context: click.Context,
    model: str | None,
    sample: int | None,
    prefix: str,
    switches: bool,
    keep_hours: float,
    rollback: bool,
    frees: bool,
    shows: bool,
) -> None:
    """Build a read model again beside the one that serves, compare the two, and switch.

    Nothing stops meanwhile. An interrupted rebuild goes on when it is called again. Without MODEL, `--status` shows
    all of them and `--free` deletes what was kept long enough. `search` and `trends` are built in one go, without
    options: search as `fanline search reindex` does it, trends by their flow, while rankings come from SQL.
    """
    configure_logging("rebuild", level="warning")
    given = _given(context)
    if len(given) > 1 and (rollback or frees or shows):
        raise ConfigurationError(f"{' and '.join(given)} exclude each other.")
    with _stores() as stores:
        known = rebuildable(stores.settings)
        wait = waiter(stores.settings, WAIT_SECONDS)
        if model in otherwise.NAMES:
            if given:
                raise ConfigurationError(f"{model.capitalize()} is built again in one go, without options.")
            otherwise.build(stores, model)
        elif shows:
            for name in known if model is None else [_named(known, model).name]:
                click.echo(load(stores, name).sentence())
        elif frees:
            _free(stores, list(known.values()) if model is None else [_named(known, model)], only_due=model is None)
        elif model is None:
            raise ConfigurationError(f"Name the read model to build again: {', '.join([*known, *otherwise.NAMES])}.")
        elif rollback:
            with alone(stores.settings, _named(known, model).name):
                click.echo(run.roll_back(stores, known[model]).sentence())
        else:
            with alone(stores.settings, _named(known, model).name) as lease:
                keep_seconds = keep_hours * 3_600 if switches else None
                choice = partial(choose, stores, sample, prefix)
                asyncio.run(_rebuild(stores, known[model], wait, choice, keep_seconds, lease))


def _given(context: click.Context) -> list[str]:
    """The options that were given, by name."""
    return [
        (each.secondary_opts or each.opts)[0]
        for each in context.command.params
        if isinstance(each, click.Option)
        and each.name is not None
        and context.get_parameter_source(each.name) is ParameterSource.COMMANDLINE
    ]


async def _rebuild(
    stores: Stores,
    model: Rebuildable,
    wait: Wait,
    choice: Callable[[], Subjects],
    keep_seconds: float | None,
    lease: Lease,
) -> None:
    state = load(stores, model.name)
    if state.step == KEPT:
        raise ConfigurationError(f"Free the kept generation first (--free). {state.sentence()}")
    if state.step != COMPARE:
        await run.begin(stores, model, wait)
        with _bar(model.name) as say:

            def page(state: State) -> None:
                lease.require()
                say(state)

            state = await asyncio.to_thread(run.build, stores, model, page)
        click.echo(f"built generation {state.written} of {model.name} in {state.seconds:.1f} s")
    compared = await run.compare(stores, model, choice(), wait)
    for name, made in compared.made.items():
        serving = compared.serving[name]
        click.echo(
            f"{name}: {made.checked:,} compared with the database, {made.equal:,} equal;"
            f" of those that serve, {serving.equal:,} of {serving.checked:,}"
        )
        if compared.lacking[name]:
            click.echo(f"{name}: {compared.lacking[name]:,} of those that serve are missing")
    if not compared.is_equal:
        raise run.RebuildDiffers(
            f"The new generation of {model.name} does not equal the database and the one that serves:"
            " nothing is switched."
        )
    if keep_seconds is not None:
        lease.require()
        state = run.switch(stores, model, keep_seconds)
    click.echo(state.sentence())


def _free(stores: Stores, those: list[Rebuildable], *, only_due: bool) -> None:
    before = {model.name: load(stores, model.name) for model in those}
    going = [model for model in those if not only_due or before[model.name].is_due(time.time())]
    with ExitStack() as stack:
        for model in going:
            stack.enter_context(alone(stores.settings, model.name))
        freed = asyncio.run(run.free(stores, going, waiter(stores.settings, WAIT_SECONDS)))
    for model in going:
        state = before[model.name]
        if model.name in freed:
            click.echo(f"freed generation {state.written} of {model.name}: {freed[model.name]:,} keys")
        else:
            click.echo(state.sentence())


def _named(known: dict[str, Rebuildable], name: str) -> Rebuildable:
    if name not in known:
        raise otherwise.refuse(name, [*known, *otherwise.NAMES])
    return known[name]


@contextmanager
def _stores() -> Iterator[Stores]:
    stores = Stores(get_settings())
    try:
        stores.load_functions()
        yield stores
    finally:
        stores.close()


@contextmanager
def _bar(name: str) -> Iterator[Callable[[State], None]]:
    """Shows a bar with the estimate on a terminal, and a line every two seconds elsewhere."""
    console = Console()
    if not console.is_terminal:
        shown = time.monotonic()

        def line(state: State) -> None:
            nonlocal shown
            if time.monotonic() - shown >= 2 and state.step == BUILD:
                shown = time.monotonic()
                click.echo(state.sentence())

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"building {name}", total=None)
        yield lambda state: progress.update(task, completed=state.done, total=state.total)
