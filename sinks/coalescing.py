"""A sink that collects what has become stale and settles it now and then, at a bounded share of the time.

For read models whose writing costs the same for one change as for thousands: what is collected is settled at once when
the last time is long enough ago, and together with all that comes meanwhile otherwise. What is collected is part of the
flow's snapshot, so that nothing is lost with the process, and its progress is committed only when it is settled.
"""

import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from connectors.flows import flow_of
from connectors.lifecycle import on_pulse
from connectors.messages import Progress
from connectors.progress import commit_progress
from connectors.waiting import TRANSIENT, Waiting
from fanline.metrics import BATCH_SIZE, SINK_RETRIES, SINK_SECONDS
from sinks.single_part import SinglePartSink, SinglePartWriter


class Collected(Protocol):
    """What is collected: false while there is nothing to settle. It is copied and pickled with snapshots."""

    def __bool__(self) -> bool: ...


C = TypeVar("C", bound=Collected)


class CoalescingSink(SinglePartSink[Any, Any], Generic[C]):
    """Adds items to a collection with `add` and settles it with `settle`, which must be idempotent.

    Between two times lie at least `seconds`, and so many that settling takes no more than `share` of the time.
    """

    def __init__(
        self,
        empty: Callable[[], C],
        add: Callable[[C, Any], None],
        settle: Callable[[C], None],
        group: str,
        *,
        seconds: float = 1.0,
        share: float = 0.1,
        name: str = "coalescing",
    ) -> None:
        self._make = partial(CoalescingWriter[C], empty, add, settle, group, seconds, share, name)

    def build_part(self, step_id: str, for_part: str, resume_state: C | None) -> "CoalescingWriter[C]":
        """The sink's part, with what was collected before a restart."""
        return self._make(resume_state)


class CoalescingWriter(SinglePartWriter[Any, Any], Generic[C]):
    """The sink's part."""

    def __init__(
        self,
        empty: Callable[[], C],
        add: Callable[[C, Any], None],
        settle: Callable[[C], None],
        group: str,
        seconds: float,
        share: float,
        name: str,
        state: C | None,
    ) -> None:
        self._empty, self._add, self._settle = empty, add, settle
        self._group, self._seconds, self._factor = group, seconds, 1 / share - 1
        self._collected: C = empty() if state is None else state
        self._items = 0
        self._progress: dict[tuple[str, int], Progress] = {}
        self._due = 0.0
        labels = (flow_of(group), name)
        self._sizes, self._took = BATCH_SIZE.labels(*labels), SINK_SECONDS.labels(*labels)
        self._retries = SINK_RETRIES.labels(*labels)
        self._waiting = Waiting(name)
        on_pulse(self.pulse)

    def write_batch(self, values: list[Any]) -> None:
        """Collect the items, and settle if it is time."""
        for value in values:
            if type(value) is Progress:
                self._progress[value.topic, value.partition] = value
            else:
                self._add(self._collected, value)
                self._items += 1
        self.pulse()

    def pulse(self) -> None:
        """Settle if it is time."""
        if self._collected:
            if time.monotonic() >= self._due:
                self.settle()
        elif self._progress:
            self._commit()

    def settle(self) -> None:
        """Settle what is collected, however long it takes, and commit the progress before it."""
        while True:
            # Waiting for a server that is away is no cost, and calls for no pause.
            started = time.monotonic()
            try:
                self._settle(self._collected)
            except TRANSIENT as error:
                self._retries.inc()
                time.sleep(self._waiting.failed(error, since=started))
            else:
                self._waiting.passed()
                break
        took = time.monotonic() - started
        self._sizes.observe(self._items)
        self._took.observe(took)
        self._collected, self._items = self._empty(), 0
        self._due = time.monotonic() + max(self._seconds, took * self._factor)
        self._commit()

    def snapshot(self) -> C | None:
        """What is collected and not settled."""
        return copy.deepcopy(self._collected) if self._collected else None

    def drain(self) -> None:
        """Settle what is left."""
        if self._collected:
            self.settle()
        elif self._progress:
            self._commit()

    def _commit(self) -> None:
        progress, self._progress = [*self._progress.values()], {}
        if progress:
            commit_progress(self._group, progress)
