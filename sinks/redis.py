"""The pipelined Redis sink: sends at once, takes in acknowledgements later, and loses nothing.

A batch's payloads go out as they come. Replies are collected with the next batch, and at each pulse of the source, so
that progress and latency do not wait for traffic. `snapshot()` returns only when everything is acknowledged.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from connectors.flows import flow_of
from connectors.lifecycle import on_pulse
from connectors.messages import Progress
from connectors.progress import ProgressGate, Segment, commit_progress
from connectors.waiting import Waiting
from fanline.errors import DependencyUnavailable
from fanline.metrics import BATCH_SIZE, SINK_RETRIES, SINK_SECONDS
from fanline.redis_connection import ErrorReply, Exchange
from fanline.redis_nodes import RedisNodes, refused
from fanline.resp import pack, unpack
from sinks.single_part import SinglePartSink, SinglePartWriter

# Unacknowledged bytes at which `write_batch` waits: some 50 ms of Redis' work, enough to keep it busy while the flow
# prepares more, little enough to bound memory and the wait at a snapshot.
INFLIGHT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RedisWrite:
    """Commands for one node of a `RedisNodes`, as bytes, and what to do with their replies.

    The commands must be idempotent in effect: after a lost connection they are sent again. `on_replies` gets all
    `replies` of them in order once, and may return further writes that follow from them; progress waits for
    those too. Error replies that repetition mends never reach it; any other ends the flow.

    Writes may overtake each other where Redis asks for a command again. One that is `in_turn` is sent only when all
    before it are answered; what is prepared for it meanwhile still overlaps with Redis' work.
    """

    node: int
    payload: bytes
    replies: int
    on_replies: Callable[[list[Any]], Iterable["RedisWrite"] | None] | None = None
    in_turn: bool = False


class RedisSink(SinglePartSink[Any, None]):
    """Writes `RedisWrite` items and commits `Progress` items to `group` once all before them is acknowledged."""

    def __init__(self, nodes: Callable[[], RedisNodes], group: str, *, name: str = "redis") -> None:
        """`nodes` gives this process's nodes, the same that the items' node numbers come from."""
        self._nodes, self._group, self._name = nodes, group, name

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "RedisWriter":
        """The sink's part."""
        return RedisWriter(self._nodes(), self._group, self._name)


class RedisWriter(SinglePartWriter[Any, None]):
    """The sink's part."""

    def __init__(self, nodes: RedisNodes, group: str, name: str) -> None:
        self._nodes = nodes
        self._gate = ProgressGate(partial(commit_progress, group))
        labels = (flow_of(group), name)
        self._sizes, self._seconds = BATCH_SIZE.labels(*labels), SINK_SECONDS.labels(*labels)
        self._retries = SINK_RETRIES.labels(*labels)
        self._reconnects = nodes.reconnects
        self._waiting = Waiting(name)
        on_pulse(self.pulse)

    def write_batch(self, values: list[Any]) -> None:
        """Send the writes; waits only while too much is unacknowledged."""
        for value in values:
            if type(value) is Progress:
                self._gate.progress(value)
            else:
                if value.in_turn:
                    self._collect_until(lambda: not self._nodes.unfinished)
                self._send(value, self._gate.sent())
                if self._nodes.inflight_bytes > INFLIGHT_BYTES:
                    self._collect_until(lambda: self._nodes.inflight_bytes <= INFLIGHT_BYTES)
        self._take(self._nodes.collect())

    def pulse(self) -> None:
        """Take in what has been acknowledged meanwhile."""
        if self._nodes.unfinished:
            self._take(self._nodes.collect())

    def snapshot(self) -> None:
        """Wait until everything is acknowledged."""
        self._collect_until(lambda: not self._nodes.unfinished)

    def _send(self, write: RedisWrite, segment: Segment) -> None:
        self._sizes.observe(write.replies)
        self._nodes.send(write.node, write.payload, write.replies, (write, segment, time.perf_counter()))

    def _collect_until(self, enough: Callable[[], bool]) -> None:
        while not enough():
            finished = self._nodes.collect(0.05)
            self._take(finished)
            if finished:
                self._waiting.passed()
            elif (reason := self._nodes.waits_for) is not None:
                self._waiting.failed(DependencyUnavailable(reason, "redis"))

    def _take(self, finished: list[Exchange]) -> None:
        for exchange in finished:
            write, segment, sent_at = exchange.token
            if exchange.has_errors:
                _raise_refused(exchange)
            self._seconds.observe(time.perf_counter() - sent_at)
            if write.on_replies is not None:
                for further in write.on_replies(exchange.replies) or ():
                    self._send(further, self._gate.sent(segment))
            self._gate.acknowledged(segment)
        if self._nodes.reconnects != self._reconnects:
            self._retries.inc(self._nodes.reconnects - self._reconnects)
            self._reconnects = self._nodes.reconnects


def _raise_refused(exchange: Exchange) -> None:
    for index, reply in enumerate(exchange.replies):
        if isinstance(reply, ErrorReply):
            raise refused(pack(*unpack(exchange.payload)[index]), reply)
