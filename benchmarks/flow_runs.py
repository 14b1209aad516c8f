"""What the benchmarks of flows share: running one, looking at it, and what Redis takes of the same alone."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import psutil

from audit.compare import Difference
from connectors.applied import AppliedOffsets
from connectors.flows import group_of, metrics_port
from dataflows.effects import Performer
from fanline.errors import DependencyUnavailable
from fanline.redis_connection import Exchange
from fanline.redis_nodes import RedisNodes
from fanline.resp import pack
from fanline.settings import get_settings
from readmodels.effects import Effects, Query, Redis, Result, drive

LOOK_SECONDS = 0.05
LONGEST_SECONDS = 240.0

Process = subprocess.Popen[bytes]
Payload = tuple[bytes, int]
"""Redis commands that are ready, and how many replies they get."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a flow has done: how many records, how many a second and a batch, and the cores that it was using."""

    records: int
    rate: float
    batch: int
    cores: float


def run_flow(flow: str, environment: Mapping[str, str], topics: Sequence[str]) -> Run:
    """Runs a flow until it has applied everything that waits in new topics, and ends it.

    The clock runs from its first commit of offsets to the last one before the end: that at the end may come after a
    pause. Raises `RuntimeError` when the flow fails or takes too long.
    """
    offsets = AppliedOffsets(get_settings(), "benchmark")
    partitions, group = offsets.partitions(topics), group_of(flow)
    expected = sum(offsets.ends(partitions).values())
    seen: list[tuple[int, float, float]] = []
    deadline = time.perf_counter() + LONGEST_SECONDS
    with running(flow, environment) as process:
        while not seen or seen[-1][0] < expected:
            must_run(process)
            if time.perf_counter() > deadline:
                raise RuntimeError(f"the flow {flow} has applied {seen[-1:]} of {expected} in {LONGEST_SECONDS:g} s")
            done = 0
            with contextlib.suppress(DependencyUnavailable):  # the first commit makes Kafka's topic of offsets
                done = sum(offsets.committed({group: partitions})[group].values())
            if done > (seen[-1][0] if seen else 0):
                seen.append((done, time.perf_counter(), cpu_seconds(process)))
            time.sleep(LOOK_SECONDS)
        url = metrics_url(flow, environment)
        batch = metric(url, "fanline_batch_size_sum") / metric(url, "fanline_batch_size_count")
    if len(seen) < 3:
        raise RuntimeError(f"the flow {flow} had too little to do to be measured")
    (first, began, before), (last, ended, after) = seen[0], seen[-2]
    seconds = ended - began
    return Run(expected, (last - first) / seconds, round(batch), round((after - before) / seconds, 2))


@contextlib.contextmanager
def running(flow: str, environment: Mapping[str, str]) -> Iterator[Process]:
    """A flow's process for as long as the block runs; it is asked to end then."""
    process = subprocess.Popen([sys.executable, "-m", "dataflows.run", flow], env=dict(environment))
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def must_run(process: Process) -> None:
    """Raises `RuntimeError` when a flow has ended."""
    if process.poll() is not None:
        raise RuntimeError(f"the flow {process.args!r} ended with code {process.returncode}")


def cpu_seconds(process: Process) -> float:
    """Seconds of a core that a process has taken."""
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


def metrics_url(flow: str, environment: Mapping[str, str]) -> str:
    """The address of /metrics of a flow."""
    return f"http://127.0.0.1:{metrics_port(int(environment['FANLINE_FLOWS_METRICS_PORT']), flow)}/metrics"


def metric(url: str, name: str) -> float:
    """The sum of a metric of a flow over its labels, 0 while the flow is not there yet."""
    try:
        with urlopen(url, timeout=2) as response:
            lines = response.read().decode().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}[ {{]", line))


class Recording:
    """Runs what a flow runs, and keeps what it sends to Redis and how long its queries take."""

    def __init__(self, performer: Performer) -> None:
        self._performer = performer
        self.payloads: list[Payload] = []
        self.query_seconds = self._redis_seconds = self._seconds = 0.0

    def run(self, effects: Effects[Result]) -> Result:
        """Runs a generator to its end."""
        started = time.perf_counter()
        result = drive(effects, self._redis, self._query)
        self._seconds += time.perf_counter() - started
        return result

    def shares(self, seconds: float) -> dict[str, float]:
        """What of a flow's seconds its queries take, their rows' way into Python included, and the read model's code.

        What is left is Kafka, decoding, the engine, and waiting for Redis.
        """
        making = self._seconds - self.query_seconds - self._redis_seconds
        return {"query_share": round(self.query_seconds / seconds, 3), "making_share": round(making / seconds, 3)}

    def _redis(self, batch: Redis) -> list[Any]:
        started = time.perf_counter()
        commands = batch.commands
        replies = self._performer.nodes.execute([(command.key, command.data) for command in commands], patience=60)
        self.payloads.append((b"".join(command.data for command in commands), len(commands)))
        self._redis_seconds += time.perf_counter() - started
        return replies

    def _query(self, query: Query) -> Sequence[Any]:
        started = time.perf_counter()
        rows = self._performer.run(_asked(query))
        self.query_seconds += time.perf_counter() - started
        return rows


def _asked(query: Query) -> Effects[Sequence[Any]]:
    rows: Sequence[Any] = yield query
    return rows


def pipelined(nodes: RedisNodes, payloads: Iterable[Payload]) -> float:
    """The seconds that Redis takes for ready commands that are sent without waiting for replies, over one connection.

    Raises `RuntimeError` when Redis refuses one.
    """
    started = time.perf_counter()
    answered: list[Exchange] = []
    for number, (payload, replies) in enumerate(payloads):
        nodes.send(0, payload, replies)
        if number % 8 == 7:
            answered += nodes.collect()
    while nodes.unfinished:
        answered += nodes.collect(0.05)
    seconds = time.perf_counter() - started
    if any(exchange.has_errors for exchange in answered):
        raise RuntimeError("Redis has refused a command that was recorded")
    return seconds


def beside_ceiling(
    flow: str,
    topics: Sequence[str],
    environment: Mapping[str, str],
    performer: Performer,
    begin: Sequence[Payload],
    recording: Recording,
    check: Callable[[], None],
) -> dict[str, Any]:
    """The figures of a flow that runs between two measurements of what Redis takes of the same alone.

    Each time Redis has what `begin` fills it with. `check` is called after the flow, and raises what is wrong.
    """

    def ceiling() -> float:
        start_anew(performer.nodes, begin)
        return pipelined(performer.nodes, recording.payloads)

    seconds = [ceiling()]
    start_anew(performer.nodes, begin)
    run = run_flow(flow, environment, topics)
    check()
    seconds.append(ceiling())
    ceilings = [round(run.records / each) for each in seconds]
    return {
        "value": round(run.rate), "ceiling": round(sum(ceilings) / 2), "ceiling_by": "own pipelined sender",
        "ceilings": ceilings, "records": run.records, "records_a_batch": run.batch,
        "flow_cores": run.cores, **recording.shares(run.records / run.rate),
    }  # fmt: skip


def start_anew(nodes: RedisNodes, payloads: Iterable[Payload]) -> None:
    """Empties Redis and fills it again with what was recorded."""
    flush(nodes)
    pipelined(nodes, payloads)


def flush(nodes: RedisNodes) -> None:
    """Empties Redis; the functions stay."""
    nodes.execute([(b"", pack(b"FLUSHALL", b"SYNC"))], patience=30)


def info(nodes: RedisNodes, field: str, section: bytes = b"default") -> float:
    """A number of INFO; one of the section `commandstats` is called `cmdstat_fcall:calls`. 0 if it is not there."""
    text = nodes.execute([(b"", pack(b"INFO", section))])[0].decode()
    found = re.search(rf"^{field}[:=]([0-9.]+)", text, re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def must_equal(name: str, found: Mapping[Any, Difference | None]) -> None:
    """Raises `RuntimeError` unless everything that was looked at is there and equals the database."""
    wrong = {subject: difference for subject, difference in found.items() if difference is None or difference}
    if wrong or not found:
        some = {str(subject): str(difference) for subject, difference in list(wrong.items())[:5]}
        raise RuntimeError(f"{len(wrong)} of {len(found)} {name} do not equal the database: {some}")


def redis_cpu(nodes: RedisNodes) -> float:
    """Seconds of a core that the server has taken."""
    return info(nodes, "used_cpu_user") + info(nodes, "used_cpu_sys")


class NoLetters:
    """Dead letters of a benchmark in which none are."""

    class brake:  # noqa: N801 - stands for an attribute
        """Counts nothing."""

        @staticmethod
        def accepted(number: int) -> None:
            """Nothing."""
