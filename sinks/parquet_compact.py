"""Keeping the archive small and lawful: small files into larger ones, and the events of a person who is gone.

A larger file is written first; its name says that it supersedes the smaller ones (readmodels/archive.py), and from
then on readers take it. The smaller ones are deleted by a later run, when no query that began before can still read
them. Nothing has to be done at the same time, so a crash at any point costs only work.

Both write what they have read, so only one of them runs at a time (sinks/parquet_lock.py): a larger file that was put
together of smaller ones as they were before an erasure would bring back what was erased.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from readmodels.archive import ArchiveFile, current, superseded
from sinks.parquet_lock import rewriting
from sinks.parquet_store import ParquetStore

# Rows of one file after compaction: large enough that a query's time goes into rows, small enough to be put together
# in memory.
TARGET_ROWS = 1_000_000


@dataclass(frozen=True)
class Compacted:
    """What a run did."""

    written: int = 0
    merged: int = 0
    deleted: int = 0


def compact(
    store: ParquetStore, *, grace_seconds: float, target_rows: int = TARGET_ROWS, wait_seconds: float = 0.0
) -> Compacted:
    """Put neighbouring small files together, and delete those that were superseded `grace_seconds` ago or earlier.

    Safe beside the flow that writes and beside queries; waits for another compaction or erasure. Raises `OSError` when
    the store does not let it, `OverlappingFiles`, and `ArchiveBusy` when the other has not finished in time.
    """
    with rewriting(store, wait_seconds):
        return _compact(store, grace_seconds, target_rows)


def _compact(store: ParquetStore, grace_seconds: float, target_rows: int) -> Compacted:
    written = merged = deleted = 0
    for topic in store.topics():
        files = store.files(topic)
        deleted += _delete_superseded(store, files, grace_seconds)
        for _, series in groupby(current(files), key=lambda file: file.series):
            for run in _runs(store, series, target_rows):
                tables = [store.read(file) for file in run]
                whole = ArchiveFile(*run[0].series, run[0].first, run[-1].last)
                store.put(whole, pa.concat_tables(tables, promote_options="default"))
                written, merged = written + 1, merged + len(run)
    return Compacted(written, merged, deleted)


def erase(store: ParquetStore, account: str, *, wait_seconds: float = 0.0) -> tuple[int, int]:
    """Take every event that names an account out of the archive; how many events, in how many files.

    An event names it when a column, or an item of a list, is its id. A file keeps its name, and so what it covers: the
    events do not come back when the topic is read again. Superseded files are rewritten too, and those that the flow
    writes meanwhile. Waits for a compaction or another erasure; raises `ArchiveBusy` when it has not finished in time.
    """
    events = files = 0
    looked_at: set[ArchiveFile] = set()
    with rewriting(store, wait_seconds):
        while new := [file for topic in store.topics() for file in store.files(topic) if file not in looked_at]:
            for file in new:
                count = _erase(store, file, account)
                events, files = events + count, files + bool(count)
            looked_at.update(new)
    return events, files


def _erase(store: ParquetStore, file: ArchiveFile, account: str) -> int:
    table = store.read(file)
    named = _names(table, account)
    count = pc.sum(named).as_py() or 0
    if count:
        store.put(file, table.filter(pc.invert(named)))
    return int(count)


def _runs(store: ParquetStore, series: Iterable[ArchiveFile], target_rows: int) -> Iterator[list[ArchiveFile]]:
    run: list[ArchiveFile] = []
    rows = 0
    for file in series:
        size = store.rows(file)
        if run and rows + size > target_rows:
            if len(run) > 1:
                yield run
            run, rows = [], 0
        run.append(file)
        rows += size
    if len(run) > 1:
        yield run


def _delete_superseded(store: ParquetStore, files: list[ArchiveFile], grace_seconds: float) -> int:
    old = superseded(files)
    if not old:
        return 0
    written = store.modified_ns(current(files))
    by_series: dict[Any, list[ArchiveFile]] = {}
    for file in written:
        by_series.setdefault(file.series, []).append(file)
    before = time.time_ns() - int(grace_seconds * 1e9)
    deleted = 0
    for file in old:
        larger = next(each for each in by_series[file.series] if each.first <= file.first and file.last <= each.last)
        if written[larger] <= before:
            store.delete(file)
            deleted += 1
    return deleted


def _names(table: pa.Table, account: str) -> Any:
    named = pa.array([False] * table.num_rows)
    for column in table.columns:
        whole = column.combine_chunks()
        whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) and whole.num_chunks else whole
        if not table.num_rows:
            continue
        if pat.is_string(whole.type):
            named = pc.or_(named, pc.fill_null(pc.equal(whole, account), False))
        elif pat.is_list(whole.type) and pat.is_string(whole.type.value_type):
            rows = pc.list_parent_indices(whole).filter(pc.fill_null(pc.equal(pc.list_flatten(whole), account), False))
            named = pc.or_(named, pc.is_in(pa.array(range(table.num_rows), pa.int64()), value_set=rows))
    return named
