"""The Parquet sink: records of one topic, partition and day to one file at a time, each record in one file.

Records, single or in runs (connectors/record_runs.py), are gathered until there are enough of them or they have waited
long enough; the file is then encoded and written by another thread. Progress is committed when everything before it is
in files. A crash loses what is gathered, which is read again, as the flow's source starts from the committed offset
(`KafkaSource(resume="committed")`). What had become a file without being committed is known by the file's name and left
out (readmodels/archive.py), so that each record is in the archive once, wherever a file was cut.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from typing import Any, TypeVar

import bytewax.operators as op
import pyarrow as pa
from bytewax.dataflow import Stream

from connectors.flows import flow_of
from connectors.lifecycle import on_pulse
from connectors.messages import Message, Progress
from connectors.progress import ProgressGate, Segment, commit_progress
from connectors.record_runs import Records, joined
from connectors.waiting import Waiting
from fanline.metrics import BATCH_SIZE, SINK_RETRIES, SINK_SECONDS
from readmodels.archive import DAY_MS, ArchiveFile, Coverage, day_of
from sinks.parquet_store import ParquetStore
from sinks.single_part import SinglePartSink, SinglePartWriter

Result = TypeVar("Result")

# Fewer than so many are converted too often for what a conversion costs by itself; more only wait.
CONVERT_RECORDS = 20_000
# A record that cannot be understood is to be a dead letter soon, not when its file is due.
CONVERT_SECONDS = 1.0
# Values gathered in memory, over all files; beyond it the largest becomes a file before its time.
GATHERED_BYTES = 128 * 1024 * 1024
# Files that are written at a time: encoding leaves Python's lock, so one thread keeps pace with the flow; a second
# hides the round trip to S3.
WRITERS = 2
WAITING_FILES = 4
# What is waited for when a file cannot be written or found.
STORE = "archive"

Convert = Callable[[Sequence[Message]], pa.Table | None]
"""Makes the rows of records of one topic, in order; leaves out (after rejecting them) those that it cannot use."""


class ParquetSink(SinglePartSink[Any, None]):
    """Writes records, given as `batches`, to a store, and commits `Progress` to `group` once all before is in files.

    `generation_of` gives the start of a topic's id in Kafka. A file is written after `rows` records, or when its
    first has waited `seconds`.
    """

    def __init__(
        self, store: Callable[[], ParquetStore], convert: Convert, generation_of: Callable[[str], str], group: str, *,
        rows: int, seconds: float, name: str = "parquet",
    ) -> None:  # fmt: skip
        self._store, self._convert, self._generation_of, self._group = store, convert, generation_of, group
        self._rows, self._seconds, self._name = rows, seconds, name

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "ParquetWriter":
        """The sink's part."""
        return ParquetWriter(
            self._store(), self._convert, self._generation_of, self._group,
            rows=self._rows, seconds=self._seconds, name=self._name,
        )  # fmt: skip


def batches(step_id: str, up: Stream[Any]) -> Stream[list[Any]]:
    """Records and progress, a batch an item: passing each of them on by itself costs more than all that is done."""
    return op.flat_map_batch(step_id, up, lambda items: [items])


@dataclass(slots=True)
class _Chunk:
    """What will be one file."""

    segment: Segment
    opened_at: float
    first: int
    last: int = 0
    count: int = 0
    size: int = 0
    pending: list[Message] | list[Records] = field(default_factory=list)
    pending_count: int = 0
    tables: list[pa.Table] = field(default_factory=list)


@dataclass(slots=True)
class _Series:
    """A topic's day in one partition: what of it is in files, and the chunk that is gathered."""

    topic: str
    day: date
    generation: str
    partition: int
    coverage: Coverage
    newest: int
    chunk: _Chunk | None = None


class ParquetWriter(SinglePartWriter[Any, None]):
    """The sink's part."""

    def __init__(
        self, store: ParquetStore, convert: Convert, generation_of: Callable[[str], str], group: str, *,
        rows: int, seconds: float, name: str,
    ) -> None:  # fmt: skip
        self._store, self._convert, self._generation_of = store, convert, generation_of
        self._rows, self._seconds = rows, seconds
        self._gate = ProgressGate(partial(commit_progress, group))
        labels = (flow_of(group), name)
        self._sizes, self._written = BATCH_SIZE.labels(*labels), SINK_SECONDS.labels(*labels)
        self._retries = SINK_RETRIES.labels(*labels)
        self._waiting = Waiting(name)
        self._series: dict[tuple[str, str, int, int], _Series] = {}
        self._coverage: dict[tuple[str, date], Coverage] = {}
        self._gathered = 0
        self._failed = False
        self._look_at = 0.0
        self._writers = ThreadPoolExecutor(WRITERS, f"{name}-writer")
        self._files: list[tuple[Future[float], ArchiveFile, pa.Table, Segment]] = []
        on_pulse(self.pulse)

    def write_batch(self, values: list[Any]) -> None:
        """Gather batches of records and progress; waits only while too many files are being written."""
        with self._failing():
            for batch in values:
                for value in batch:
                    if type(value) is Records:
                        self._add_run(value)
                    elif type(value) is Progress:
                        self._gate.progress(value)
                    else:
                        self._add(value)
            while self._gathered > GATHERED_BYTES:
                self._close_chunk(max(self._open(), key=lambda each: each.chunk.size if each.chunk else 0))
            while len(self._files) > WAITING_FILES:
                self._collect(0.01)

    def pulse(self) -> None:
        """Take in what was written, and begin the files that are due."""
        with self._failing():
            if self._files:
                self._collect(0.0)
            now = time.monotonic()
            if now < self._look_at:
                return
            self._look_at = now + min(CONVERT_SECONDS, self._seconds / 4)
            for series in self._open():
                assert series.chunk is not None
                self._convert_pending(series.chunk)
                if now - series.chunk.opened_at >= self._seconds:
                    self._close_chunk(series)
        # Of days that are over, and of partitions that others have taken over.
        self._series = {key: series for key, series in self._series.items() if series.chunk is not None}
        self._coverage = {key: found for key, found in self._coverage.items() if (date.today() - key[1]).days < 2}

    def snapshot(self) -> None:
        """Nothing to keep: what is gathered is read again, from the committed offset."""

    def drain(self) -> None:
        """Write everything that is gathered, and wait until it is there; nothing more after a failure."""
        if not self._failed:
            for series in self._open():
                self._close_chunk(series)
            while self._files:
                self._collect(0.05)

    def release(self) -> None:
        """End the threads."""
        self._writers.shutdown(cancel_futures=True)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._failed = True
            raise

    def _open(self) -> list[_Series]:
        return [series for series in self._series.values() if series.chunk is not None]

    def _add(self, message: Message) -> None:
        # A record that was rejected and sent back counts by where it is now: its own offset is in a file's range.
        home, partition, offset = message.position
        series = self._series_at(message.topic, home, partition, message.timestamp_ms)
        if offset <= series.newest and series.coverage.has(series.generation, partition, offset):
            # It would make a range with a hole; what came before it ends here.
            self._close_chunk(series)
            return
        chunk = self._opened(series, offset)
        self._pending_of(chunk, Message).append(message)
        self._grown(series, chunk, offset, 1, len(message.value or b""))

    def _add_run(self, records: Records) -> None:
        first_ms, last_ms = int(records.timestamps_ms.min()), int(records.timestamps_ms.max())
        series = self._series_at(records.topic, records.topic, records.partition, first_ms)
        if first_ms // DAY_MS != last_ms // DAY_MS or records.offsets[0] <= series.newest:
            for message in records:
                self._add(message)
            return
        while records:
            chunk = self._opened(series, int(records.offsets[0]))
            room = self._rows - chunk.count
            some, records = (records, records[:0]) if len(records) <= room else (records[:room], records[room:])
            self._pending_of(chunk, Records).append(some)
            self._grown(series, chunk, int(some.offsets[-1]), len(some), some.value_bytes)

    def _pending_of(self, chunk: _Chunk, kind: type[Message] | type[Records]) -> list[Any]:
        """What waits to be converted, once it is all of one kind."""
        if chunk.pending and type(chunk.pending[0]) is not kind:
            self._convert_pending(chunk)
        return chunk.pending

    def _opened(self, series: _Series, offset: int) -> _Chunk:
        if series.chunk is None:
            series.chunk = _Chunk(self._gate.sent(), time.monotonic(), offset)
        return series.chunk

    def _grown(self, series: _Series, chunk: _Chunk, last: int, count: int, size: int) -> None:
        chunk.last = last
        chunk.count += count
        chunk.size += size
        chunk.pending_count += count
        self._gathered += size
        if chunk.pending_count >= CONVERT_RECORDS:
            self._convert_pending(chunk)
        if chunk.count >= self._rows:
            self._close_chunk(series)

    def _series_at(self, topic: str, home: str, partition: int, timestamp_ms: int) -> _Series:
        key = (topic, home, partition, timestamp_ms // DAY_MS)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._known(topic, home, partition, timestamp_ms)
        return series

    def _known(self, topic: str, home: str, partition: int, timestamp_ms: int) -> _Series:
        day = day_of(timestamp_ms)
        coverage = self._coverage.get((topic, day))
        if coverage is None:
            coverage = Coverage(self._patiently(lambda: self._store.files(topic, day)))
            self._coverage[topic, day] = coverage
        generation = self._patiently(lambda: self._generation_of(home))
        return _Series(topic, day, generation, partition, coverage, coverage.newest(generation, partition))

    def _convert_pending(self, chunk: _Chunk) -> None:
        if not chunk.pending:
            return
        pending: Any = chunk.pending
        table = self._convert(joined(pending) if type(pending[0]) is Records else pending)
        chunk.pending, chunk.pending_count = [], 0
        if table is not None and table.num_rows:
            chunk.tables.append(table)

    def _close_chunk(self, series: _Series) -> None:
        """Begin to write what is gathered; from now on a further record starts another file."""
        chunk, series.chunk = series.chunk, None
        if chunk is None:
            return
        self._convert_pending(chunk)
        self._gathered -= chunk.size
        if not chunk.tables:
            self._gate.acknowledged(chunk.segment)
            return
        table = pa.concat_tables(chunk.tables, promote_options="default")
        file = ArchiveFile(
            series.topic, series.day, series.generation, series.partition, chunk.first, chunk.last
        )  # fmt: skip
        series.coverage.add(file)
        series.newest = max(series.newest, file.last)
        self._sizes.observe(table.num_rows)
        self._files.append((self._writers.submit(self._put, file, table, 0.0), file, table, chunk.segment))

    def _put(self, file: ArchiveFile, table: pa.Table, pause: float) -> float:
        """Runs in a writer's thread; the seconds that it took."""
        time.sleep(pause)
        started = time.perf_counter()
        self._store.put(file, table)
        return time.perf_counter() - started

    def _collect(self, wait_seconds: float) -> None:
        """Acknowledge the files that are there; those that could not be written are tried again."""
        left = []
        for number, (future, file, table, segment) in enumerate(self._files):
            if wait_seconds and number == 0 and not future.done():
                time.sleep(wait_seconds)
            if not future.done():
                left.append((future, file, table, segment))
                continue
            try:
                seconds = future.result()
            except OSError as error:
                self._retries.inc()
                pause = self._waiting.failed(error, dependency=STORE)
                left.append((self._writers.submit(self._put, file, table, pause), file, table, segment))
            else:
                self._waiting.passed()
                self._written.observe(seconds)
                self._gate.acknowledged(segment)
        self._files = left

    def _patiently(self, attempt: Callable[[], Result]) -> Result:
        return self._waiting.patiently(attempt, failures=(OSError,), dependency=STORE)
