"""Shows the pipeline at work: a live panel on a terminal, a line every two seconds elsewhere."""

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo.figures import Figures
from demo.journey import STAGES, Journey

PLAIN_SECONDS = 2.0


class Panel:
    """The state of a load. Use it as a context manager and call `update` as often as there is news."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        self._started = self._printed = time.monotonic()
        self._before: tuple[float, int, int] | None = None
        self._rates = (0.0, 0.0)

    def __enter__(self) -> "Panel":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, posts: int, figures: Figures, journeys: Sequence[Journey]) -> None:
        """Show a reading; rates are taken from the reading before."""
        now = time.monotonic()
        if self._before is not None and now > self._before[0]:
            then, posts_then, deliveries_then = self._before
            # A flow that was started again counts from zero.
            delivered = max(0, figures.deliveries - deliveries_then)
            self._rates = ((posts - posts_then) / (now - then), delivered / (now - then))
        self._before = (now, posts, figures.deliveries)
        if self._live is not None:
            self._live.update(self._table(posts, figures, journeys))
        elif now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            self._console.print(self._line(posts, figures, journeys), highlight=False, soft_wrap=True)

    def _line(self, posts: int, figures: Figures, journeys: Sequence[Journey]) -> str:
        parts = [
            f"{time.monotonic() - self._started:5.1f} s",
            f"{posts:,} of {self._total:,} posts",
            f"{self._rates[0]:.0f} posts/s",
            f"{self._rates[1]:,.0f} deliveries/s",
            f"lag {_lag(figures)}",
        ]
        if way := _newest_way(journeys):
            parts.append(f"a post's way in ms: {way}")
        return " | ".join(parts)

    def _table(self, posts: int, figures: Figures, journeys: Sequence[Journey]) -> Table:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_row("posts", f"{posts:,} of {self._total:,}", f"{self._rates[0]:.0f}/s")
        table.add_row("deliveries", f"{figures.deliveries:,} since the start", f"{self._rates[1]:,.0f}/s")
        for (flow, stage), seconds in sorted(figures.lags.items()):
            table.add_row("lag", f"{flow}, {stage}", f"{seconds:.2f} s")
        table.add_row("a post's way", _newest_way(journeys) or "", "ms")
        if figures.dead_letters:
            table.add_row("dead letters", f"{figures.dead_letters:,}", "")
        return table


def _lag(figures: Figures) -> str:
    """The applied lag of each flow."""
    applied = {flow: seconds for (flow, stage), seconds in figures.lags.items() if stage == "applied"}
    return ", ".join(f"{flow} {seconds:.2f} s" for flow, seconds in applied.items()) or "unknown"


def _newest_way(journeys: Sequence[Journey]) -> str:
    """The stages of the newest post whose way is known."""
    for journey in reversed(journeys):
        stages = journey.stages()
        if stages is not None:
            ways = " + ".join(f"{stage} {stages[stage]:.0f}" for stage in STAGES)
            return f"{ways} = {sum(stages.values()):.0f}"
    return ""
