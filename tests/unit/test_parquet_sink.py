"""The Parquet sink on a local folder: what becomes a file when, and what is left out."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from connectors.messages import Message, Progress, Replayed
from fanline import avro
from fanline.errors import DeadLetterBrake
from readmodels.archive import ArchiveFile, current
from schemas import contracts
from sinks.parquet import ParquetWriter
from sinks.parquet_compact import Compacted, compact, erase
from sinks.parquet_lock import ArchiveBusy
from sinks.parquet_query import QueryFailed, open_archive, query
from sinks.parquet_store import ParquetStore

TOPIC = "post.created"
DAY = date(2026, 11, 22)
NOON_MS = 1_795_348_800_000


def message(offset: int, timestamp_ms: int = NOON_MS, partition: int = 0) -> Message:
    return Message(TOPIC, partition, offset, b"key", b"value", (), timestamp_ms)


def rows(messages) -> pa.Table:
    return pa.table({"offset": [each.offset for each in messages]})


def writer(store, convert=rows, count=100, seconds=1000.0) -> ParquetWriter:
    generation = "0000000a"
    return ParquetWriter(store, convert, lambda _: generation, "group", rows=count, seconds=seconds, name="x")


def given(part: ParquetWriter, items) -> None:
    part.write_batch([list(items)])


def archived(store: ParquetStore) -> list[int]:
    return sorted(row["offset"] for file in current(store.files(TOPIC)) for row in store.read(file).to_pylist())


def test_records_are_committed_when_they_are_in_a_file_and_not_before(store, committed):
    part = writer(store, count=10)
    given(part, [*map(message, range(9)), Progress(TOPIC, 0, 9)])
    assert (archived(store), committed) == ([], {})
    given(part, [message(9), Progress(TOPIC, 0, 10)])
    part.close()
    assert archived(store) == list(range(10))
    assert committed == {(TOPIC, 0): 10}


def test_a_file_is_written_when_its_first_record_has_waited_long_enough(store, committed):
    part = writer(store, seconds=0.05)
    given(part, [message(0), Progress(TOPIC, 0, 1)])
    deadline = time.monotonic() + 10
    while not committed and time.monotonic() < deadline:
        part.pulse()
    assert committed == {(TOPIC, 0): 1}
    assert archived(store) == [0]


def test_a_replay_writes_only_what_is_missing_wherever_files_were_cut(store, committed):
    first = writer(store, count=10)
    given(first, [message(offset) for offset in range(25)])
    first._writers.shutdown()
    assert archived(store) == list(range(20))
    again = writer(store, count=7)
    given(again, [message(offset) for offset in range(40)])
    again.close()
    assert archived(store) == list(range(40))


def test_a_hole_before_files_that_are_there_is_filled(store, committed):
    first = writer(store, count=5)
    given(first, [message(offset) for offset in range(20)])
    first.close()
    store.delete(store.files(TOPIC)[1])
    again = writer(store)
    given(again, [message(offset) for offset in range(22)])
    again.close()
    assert archived(store) == list(range(22))
    assert [(file.first, file.last) for file in store.files(TOPIC)] == [(0, 4), (5, 9), (10, 14), (15, 19), (20, 21)]


def test_days_and_partitions_have_files_of_their_own(store, committed):
    part = writer(store)
    given(
        part,
        [message(0), message(1, NOON_MS + 43_200_000), message(2), message(3, partition=1), message(3, NOON_MS - 1)],
    )
    part.close()
    assert [(file.day.day, file.partition, file.first, file.last) for file in store.files(TOPIC)] == [
        (22, 0, 0, 3), (22, 1, 3, 3), (23, 0, 1, 1),
    ]  # fmt: skip


def test_a_rejected_record_that_was_sent_back_is_archived_though_its_offset_is_covered(store, committed):
    def only_even(messages):
        return rows([each for each in messages if each.offset % 2 == 0 or isinstance(each, Replayed)])

    part = writer(store, only_even)
    given(part, [message(offset) for offset in range(5)])
    part.close()
    back = Replayed(*message(3))
    back.retried, back.retried_offset = ("retry.archive", 0), 17
    for _ in range(2):
        part = writer(store, only_even)
        given(part, [back, Progress("retry.archive", 0, 18)])
        part.close()
    assert archived(store) == [0, 2, 3, 4]
    assert committed["retry.archive", 0] == 18


def test_a_store_that_is_away_is_waited_for(store, committed, monkeypatch):
    put, failures = store.put, []

    def failing(file, table):
        if len(failures) < 2:
            failures.append(file)
            raise OSError("the bucket does not answer")
        put(file, table)

    monkeypatch.setattr(store, "put", failing)
    part = writer(store, count=3)
    given(part, [*map(message, range(3)), Progress(TOPIC, 0, 3)])
    assert committed == {}
    part.close()
    assert archived(store) == [0, 1, 2]
    assert committed == {(TOPIC, 0): 3}


def test_after_a_failure_the_end_fails_no_second_time_and_keeps_nothing(store, committed):
    """The engine closes sinks in a destructor: a second failure there aborts the process."""

    def broken(messages):
        raise DeadLetterBrake("too many")

    part = writer(store, broken, count=3)
    with pytest.raises(DeadLetterBrake):
        given(part, [*map(message, range(4)), Progress(TOPIC, 0, 4)])
    part.close()
    part = writer(store, broken, seconds=0.0)
    given(part, [message(0), Progress(TOPIC, 0, 1)])
    with pytest.raises(DeadLetterBrake):
        part.pulse()
    part.close()
    assert (archived(store), committed) == ([], {})


def test_what_a_crash_leaves_of_a_file_is_no_file(store, committed):
    part = writer(store)
    given(part, [message(0)])
    part.close()
    folder = Path(store.path(store.files(TOPIC)[0])).parent
    (folder / ".half-1.part").write_bytes(b"PAR1")
    assert archived(store) == [0]
    assert store.delete_parts() == 1


def test_new_folders_are_durable_in_their_parents_before_a_file_counts_as_written(store, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), sync(fd)))
    file = ArchiveFile(TOPIC, DAY, "0000000a", 0, 0, 0)
    store.put(file, rows([message(0)]))
    day = Path(store.path(file)).parent
    root = Path(store.root)
    assert synced[:3] == [str(root.parent), str(root), str(day.parent)]
    assert synced[-1] == str(day)
    synced.clear()
    store.put(file, rows([message(0)]))
    assert len(synced) == 2


def test_compaction_never_shows_a_row_twice_or_not_at_all(store, committed):
    part = writer(store, count=10)
    given(part, [message(offset) for offset in range(45)])
    part.close()
    assert compact(store, grace_seconds=600) == Compacted(written=1, merged=5)
    assert len(store.files(TOPIC)) == 6
    assert archived(store) == list(range(45))
    assert compact(store, grace_seconds=600) == Compacted()
    assert compact(store, grace_seconds=0) == Compacted(deleted=5)
    assert archived(store) == list(range(45))
    again = writer(store, count=10)
    given(again, [message(offset) for offset in range(50)])
    again.close()
    assert archived(store) == list(range(50))


def test_compaction_keeps_files_below_its_target(store, committed):
    part = writer(store, count=10)
    given(part, [message(offset) for offset in range(40)])
    part.close()
    assert compact(store, grace_seconds=0, target_rows=25) == Compacted(written=2, merged=4)
    assert compact(store, grace_seconds=0, target_rows=25) == Compacted(deleted=4)
    assert archived(store) == list(range(40))


def events(messages) -> pa.Table:
    people = ["11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"]
    contract = contracts.load()[TOPIC]
    decoder = avro.AvroDecoder(lambda _: contract.text)
    value = avro.encode(1, avro.parse(contract.text), contract.example)
    filled = [
        {
            **decoder.decode(value),
            "author_id": people[each.offset % 2],
            "mentions": [people[0]] if each.offset == 3 else [],
            "kafka_offset": each.offset,
            "kafka_partition": 0,
            # Debezium sent the events 0 and 1 twice.
            "event_id": str(each.offset if each.offset < 8 else each.offset - 8),
        }
        for each in messages
    ]
    return pa.Table.from_pylist(filled)


def count(store, sql='SELECT count(*) AS n FROM "post.created"', **options) -> int:
    return query(open_archive(store, **options), sql)["n"].to_pylist()[0]


def test_queries_see_each_event_once_and_every_record_when_asked(store, committed):
    part = writer(store, events, count=4)
    given(part, [message(offset) for offset in range(10)])
    part.close()
    assert count(store) == 8
    assert count(store, every_record=True) == 10
    assert count(store, "SELECT count(*) AS n FROM \"post.created\" WHERE day = DATE '2026-11-22'") == 8
    assert count(store, since=date(2026, 11, 23)) == 0
    assert count(store, 'SELECT count(*) AS n FROM "follow.created"') == 0
    with pytest.raises(QueryFailed, match=r"^DuckDB: .*nope.*\.$"):
        query(open_archive(store), "SELECT nope")


def test_days_are_left_out_where_that_loses_no_event_and_repeats_none(store, committed):
    """Event 1 was sent again after midnight, as offset 9."""
    part = writer(store, events)
    midnight = NOON_MS + 43_200_000
    given(part, [*(message(offset) for offset in range(8)), message(8, midnight), message(9, midnight)])
    part.close()
    second_day = "SELECT count(*) AS n FROM \"post.created\" WHERE day = DATE '2026-11-23'"
    assert count(store, second_day) == 0
    assert count(store, second_day, every_record=True) == 2

    def scan(**options) -> str:
        return query(open_archive(store, **options), f"EXPLAIN {second_day}")["explain_value"].to_pylist()[0]

    pushed = """Filters: "day" = DATE '2026-11-23'"""
    assert pushed in scan(every_record=True)
    assert pushed not in scan()
    files = [Path(store.path(file)) for file in store.files(TOPIC)]
    files[0].write_bytes(b"not to be read")
    assert count(store, second_day, every_record=True) == 2
    assert count(store, since=date(2026, 11, 23)) == 2
    with pytest.raises(QueryFailed):
        count(store, second_day)


def test_erasing_a_person_leaves_no_event_that_names_them_not_even_after_a_replay(store, committed):
    part = writer(store, events, count=4)
    given(part, [message(offset) for offset in range(8)])
    part.close()
    compact(store, grace_seconds=600)
    assert erase(store, "11111111-1111-1111-1111-111111111111") == (10, 3)
    left = [row for file in store.files(TOPIC) for row in store.read(file).to_pylist()]
    assert "11111111" not in json.dumps(left, default=str)
    assert sorted({row["kafka_offset"] for row in left}) == [1, 5, 7]
    part = writer(store, events)
    given(part, [message(offset) for offset in range(8)])
    part.close()
    assert count(store) == 3


PERSON = "11111111-1111-1111-1111-111111111111"


def names(store, person=PERSON) -> bool:
    return any(person in str(store.read(file).to_pylist()) for topic in store.topics() for file in store.files(topic))


@pytest.fixture(params=["lock", "mark"])
def shared(store, request):
    """A store in a local folder, and one that has marks as in S3."""
    store.is_local = request.param == "lock"
    # S3 needs no folders.
    store.filesystem.create_dir(f"{store.root}/{TOPIC}/day={DAY}")
    return store


def test_what_is_erased_while_a_compaction_has_its_files_in_memory_does_not_come_back(shared, committed, monkeypatch):
    part = writer(shared, events, count=4)
    given(part, [message(offset) for offset in range(8)])
    part.close()
    beside = ParquetStore(Path(shared.root).as_uri())
    beside.is_local = shared.is_local
    put, erasures = shared.put, []

    def put_late(file, table):
        with pytest.raises(ArchiveBusy, match="by another process"):
            erase(beside, PERSON)
        erasures.append(pool.submit(erase, beside, PERSON, wait_seconds=30))
        put(file, table)

    monkeypatch.setattr(shared, "put", put_late)
    with ThreadPoolExecutor(1) as pool:
        assert compact(shared, grace_seconds=600) == Compacted(written=1, merged=2)
        assert erasures[0].result(30) == (10, 3)
    assert not names(shared)
    assert erase(shared, PERSON) == (0, 0)
    assert compact(shared, grace_seconds=0) == Compacted(deleted=2)
    assert not names(shared)


def test_files_that_the_flow_writes_while_others_are_erased_from_are_looked_at_too(store, committed, monkeypatch):
    part = writer(store, events, count=4)
    given(part, [message(offset) for offset in range(4)])
    read = store.read

    def read_while_the_flow_writes(file):
        if len(store.files(TOPIC)) == 1:
            given(part, [message(offset) for offset in range(4, 8)])
            part.close()
        return read(file)

    part.drain()
    monkeypatch.setattr(store, "read", read_while_the_flow_writes)
    assert erase(store, PERSON) == (5, 2)
    assert not names(store)


def test_the_mark_of_one_that_was_killed_is_named(store):
    store.is_local = False
    store.filesystem.create_dir(store.root)
    with store.filesystem.open_output_stream(f"{store.root}/rewriting-elsewhere-7") as stream:
        stream.write(b"")
    with pytest.raises(ArchiveBusy, match=r"rewriting-elsewhere-7\. If it was killed"):
        compact(store, grace_seconds=0)
    assert not store.topics()
