"""A sink that applies each batch with a function and commits progress after it."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import redis
from bytewax.outputs import StatefulSinkPartition

from connectors.flows import flow_of
from connectors.messages import Progress
from connectors.progress import commit_progress
from fanline.errors import DependencyUnavailable
from fanline.metrics import BATCH_SIZE, SINK_RETRIES, SINK_SECONDS
from sinks.single_part import SinglePartSink
from sinks.waiting import Waiting

# What a server that is away or restarting raises; everything else is a defect and ends the flow.
TRANSIENT = (DependencyUnavailable, redis.ConnectionError, redis.TimeoutError, psycopg.OperationalError)


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


class BatchWriter(StatefulSinkPartition[Any, None]):
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
            self._until_applied(items)
            self._sizes.observe(len(items))
            self._seconds.observe(time.perf_counter() - started)
        if len(items) < len(values):
            commit_progress(self._group, [value for value in values if type(value) is Progress])

    def snapshot(self) -> None:
        """Nothing is pending."""

    def _until_applied(self, items: list[Any]) -> None:
        while True:
            try:
                self._apply(items)
            except TRANSIENT as error:
                self._retries.inc()
                time.sleep(self._waiting.failed(str(error) or type(error).__name__))
            else:
                self._waiting.passed()
                return
