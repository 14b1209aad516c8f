"""A sink that applies each batch with a function and commits progress after it."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from connectors.flows import flow_of
from connectors.messages import Progress
from connectors.progress import commit_progress
from connectors.waiting import Waiting
from fanline.metrics import BATCH_SIZE, SINK_RETRIES, SINK_SECONDS
from sinks.single_part import SinglePartSink, SinglePartWriter


class BatchSink(SinglePartSink[Any, None]):
    """Calls `apply` with the data items of each batch, in order, until it succeeds.

    `apply` must be idempotent: after a lost connection it is called again with the same items. It must return only
    when its effects are acknowledged. Progress items are kept from it; their offsets are committed to `group`
    after it.
    """

    def __init__(self, apply: Callable[[Sequence[Any]], None], group: str, *, name: str = "batch") -> None:
        self._apply, self._group, self._name = apply, group, name

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "BatchWriter":
        """The sink's part."""
        return BatchWriter(self._apply, self._group, self._name)


class BatchWriter(SinglePartWriter[Any, None]):
    """The sink's part: nothing is pending between two batches."""

    def __init__(self, apply: Callable[[Sequence[Any]], None], group: str, name: str) -> None:
        self._apply, self._group = apply, group
        labels = (flow_of(group), name)
        self._sizes, self._seconds = BATCH_SIZE.labels(*labels), SINK_SECONDS.labels(*labels)
        self._retries = SINK_RETRIES.labels(*labels)
        self._waiting = Waiting(name)

    def write_batch(self, values: list[Any]) -> None:
        """Apply the items, then commit the progress among them."""
        items = [value for value in values if type(value) is not Progress]
        if items:
            started = time.perf_counter()
            self._waiting.patiently(partial(self._apply, items), again=self._retries.inc)
            self._sizes.observe(len(items))
            self._seconds.observe(time.perf_counter() - started)
        if len(items) < len(values):
            commit_progress(self._group, [value for value in values if type(value) is Progress])

    def snapshot(self) -> None:
        """Nothing is pending."""
