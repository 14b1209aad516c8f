"""The OpenSearch sink: bulk requests of versioned documents; loses nothing, repeats harmlessly, knows no feature.

Its contract is `IndexWrite` (readmodels/indexed.py), and nothing of OpenSearch is in that: a sink for another search
engine is one file with a part that

1. takes `IndexWrite` and `Progress` items in `write_batch`, and writes to every index that is behind the alias at the
   time of writing (a new index is built beside the old one);
2. lets a write count only if no later version was there (OpenSearch has external versions for it; where an engine has
   none, as Meilisearch, the version is a field of the document that is compared before writing, one instance an alias);
3. goes on trying while the server is away or overloaded, saying what it waits for (`connectors/waiting.py`);
4. rejects a document that the engine cannot take, with the engine's reason, as a dead letter of its cause;
5. commits progress when everything before it is acknowledged (`connectors/progress.py`), and returns from
   `snapshot()` only when everything is.

The suite in tests/integration/contract holds a sink to it.
"""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from connectors.dead_letter import DeadLetters
from connectors.flows import flow_of
from connectors.lifecycle import on_pulse
from connectors.messages import Progress
from connectors.progress import ProgressGate, Segment, commit_progress
from connectors.waiting import Waiting
from fanline.errors import DependencyUnavailable, FanlineError, MalformedEvent
from fanline.metrics import BATCH_SIZE, SINK_RETRIES, SINK_SECONDS
from readmodels.indexed import IndexWrite
from sinks.opensearch_client import OpenSearchClient
from sinks.single_part import SinglePartSink, SinglePartWriter

# Large enough that a request costs little beside its documents, small enough that an answer comes within a second.
REQUEST_DOCUMENTS = 500
REQUEST_BYTES = 4 * 1024 * 1024
# One that OpenSearch works on, and one that waits for it.
REQUESTS = 2
_PASSING = frozenset({429, 500, 502, 503, 504})


class IndexMissing(FanlineError):
    """There is no index behind an alias: it was never built, or is lost with OpenSearch's data."""


@dataclass(slots=True)
class _Request:
    writes: list[IndexWrite]
    segment: Segment
    sent_at: float
    answer: "Future[Outcome]"


@dataclass(slots=True)
class Outcome:
    """What became of some writes."""

    again: list[IndexWrite] = field(default_factory=list)
    reason: str = ""
    refused: dict[int, tuple[IndexWrite, str]] = field(default_factory=dict)
    """By identity: a write that two indexes refuse is one dead letter."""


class OpenSearchSink(SinglePartSink[Any, None]):
    """Writes `IndexWrite` items; commits `Progress` items to `group` once all before them is acknowledged."""

    def __init__(self, client: Callable[[], OpenSearchClient], group: str, *, name: str = "opensearch") -> None:
        self._client, self._group, self._name = client, group, name

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "OpenSearchWriter":
        """The sink's part."""
        return OpenSearchWriter(self._client(), self._group, self._name)


class OpenSearchWriter(SinglePartWriter[Any, None]):
    """The sink's part. Requests run in threads; everything else is done by the flow's own."""

    def __init__(self, client: OpenSearchClient, group: str, name: str) -> None:
        self._client = client
        self._gate = ProgressGate(partial(commit_progress, group))
        self._dead_letters = DeadLetters(flow_of(group))
        labels = (flow_of(group), name)
        self._sizes, self._seconds = BATCH_SIZE.labels(*labels), SINK_SECONDS.labels(*labels)
        self._retries = SINK_RETRIES.labels(*labels)
        self._waiting = Waiting(name)
        self._threads = ThreadPoolExecutor(REQUESTS, thread_name_prefix=name)
        self._open: list[_Request] = []
        on_pulse(self.pulse)

    def write_batch(self, values: list[Any]) -> None:
        """Send the writes; waits only while too many requests are unanswered."""
        pending: list[IndexWrite] = []
        size = 0
        for value in values:
            if type(value) is Progress:
                self._send(pending)
                pending, size = [], 0
                self._gate.progress(value)
                continue
            pending.append(value)
            size += len(value.document or b"")
            if len(pending) >= REQUEST_DOCUMENTS or size >= REQUEST_BYTES:
                self._send(pending)
                pending, size = [], 0
        self._send(pending)
        self.pulse()

    def pulse(self) -> None:
        """Take in what has been answered meanwhile."""
        while self._open and self._open[0].answer.done():
            self._take(self._open.pop(0))

    def snapshot(self) -> None:
        """Wait until everything is acknowledged."""
        while self._open:
            self._take(self._open.pop(0))

    def release(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _send(self, writes: list[IndexWrite]) -> None:
        if not writes:
            return
        while len(self._open) >= REQUESTS:
            self._take(self._open.pop(0))
        self._sizes.observe(len(writes))
        answer = self._threads.submit(write, self._client, writes)
        self._open.append(_Request(writes, self._gate.sent(), time.perf_counter(), answer))

    def _take(self, request: _Request) -> None:
        writes, answer = request.writes, request.answer
        while True:
            try:
                outcome = answer.result()
            except DependencyUnavailable as error:
                outcome = Outcome(again=writes, reason=str(error))
            for refused, reason in outcome.refused.values():
                self._reject(refused, reason)
            if not outcome.again:
                break
            self._retries.inc()
            time.sleep(self._waiting.failed(DependencyUnavailable(outcome.reason, "opensearch")))
            writes = outcome.again
            answer = self._threads.submit(write, self._client, writes)
        self._waiting.passed()
        self._seconds.observe(time.perf_counter() - request.sent_at)
        self._gate.acknowledged(request.segment)

    def _reject(self, refused: IndexWrite, reason: str) -> None:
        text = f"OpenSearch does not take {refused.id} into {refused.alias}: {reason}."
        if refused.cause is None:
            raise FanlineError(text)
        try:
            self._dead_letters.reject(refused.cause, MalformedEvent(text))
        finally:
            self._dead_letters.flush()


def write(client: OpenSearchClient, writes: Sequence[IndexWrite]) -> Outcome:
    """Write to every index behind the aliases.

    Raises `IndexMissing`, `OpenSearchRefused`, and `DependencyUnavailable` when it may all have to be written again.
    """
    # Asked for each request: whatever was committed before a new index got the alias is seen by those who fill it, and
    # everything later is written to it.
    indexes = client.behind([write.alias for write in writes])
    for alias, found in indexes.items():
        if not found:
            raise IndexMissing(f"There is no index behind {alias}.")
    return write_to(client, [(write, index) for write in writes for index in indexes[write.alias]])


def write_to(client: OpenSearchClient, targets: Sequence[tuple[IndexWrite, str]]) -> Outcome:
    """Write each document to its index; raises as `write` does."""
    outcome = Outcome()
    again: dict[int, IndexWrite] = {}
    for (each, _), answer in zip(targets, client.bulk(_payload(targets)), strict=True):
        fault = answer.get("error")
        if fault is None or answer["status"] == 409:
            continue
        if answer["status"] in _PASSING or fault["type"] in ("index_not_found_exception", "cluster_block_exception"):
            again[id(each)] = each
            outcome.reason = f"OpenSearch answers {answer['status']}: {fault['reason']}"
        else:
            outcome.refused[id(each)] = each, _reason(fault)
    outcome.again = list(again.values())
    return outcome


def _payload(targets: Sequence[tuple[IndexWrite, str]]) -> bytes:
    lines: list[bytes] = []
    for each, index in targets:
        action = "delete" if each.document is None else "index"
        # `external_gte`: whoever writes the same version again writes the same.
        place = {"_index": index, "_id": each.id, "version": each.version, "version_type": "external_gte"}
        lines.append(json.dumps({action: place}).encode())
        if each.document is not None:
            lines.append(each.document)
    lines.append(b"")
    return b"\n".join(lines)


def _reason(fault: dict[str, Any]) -> str:
    cause = fault.get("caused_by")
    return f"{fault['reason']} ({cause['reason']})" if cause else str(fault["reason"])
