"""Runs of records: what the archive makes of them is what it makes of single records, whatever is wrong with some."""

from datetime import date
from itertools import pairwise

import pyarrow as pa
import pytest

from connectors.messages import Message, Progress, Replayed
from connectors.record_runs import Records, in_runs, joined
from dataflows.archive_rows import ArchiveRows
from fanline import avro
from readmodels.archive import current
from schemas import contracts
from sinks.parquet import ParquetWriter
from tests.unit.letters import Letters

TOPIC = "post.created"
NOON_MS = 1_795_348_800_000
DAY_MS = 86_400_000
CONTRACT = contracts.load()[TOPIC]
GOOD = avro.encode(1, avro.parse(CONTRACT.text), CONTRACT.example)
OTHER = avro.encode(2, avro.parse(CONTRACT.text), CONTRACT.example)


def message(offset: int, value: bytes | None = GOOD, key: bytes | None = b"7", headers=((("id", b"x")),), **more):
    made = Message(TOPIC, 3, offset, key, value, headers, NOON_MS + offset)
    return made._replace(**more)


def run(messages) -> Records:
    (found,) = in_runs(messages)
    assert isinstance(found, Records)
    return found


def rows_and_letters(messages):
    letters = Letters()
    decoder = avro.AvroDecoder(lambda number: CONTRACT.text if number < 3 else None)
    table = ArchiveRows(decoder, letters)(messages)
    return table, letters.found, letters.understood


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"value": None},
        {"value": b""},
        {"value": b"\0\0\0\0\1"},
        {"value": b"\1" + GOOD[1:]},
        {"value": OTHER},
        {"value": b"\0\0\0\0\x09" + GOOD[5:]},
        {"value": GOOD[:-2]},
        {"value": GOOD + b"x"},
        {"key": None},
        {"key": b"\xff"},
        {"headers": ()},
        {"headers": (("trace", b"1"), ("id", b"y"))},
        {"headers": (("id", b"\xff"),)},
        {"headers": (("id", None),)},
    ],
)
@pytest.mark.parametrize("place", [0, 2])
def test_a_run_has_the_rows_and_dead_letters_of_its_records(odd, place):
    messages = [message(offset, **(odd if offset == place else {})) for offset in range(4)]
    expected = rows_and_letters(messages)
    assert rows_and_letters(run(messages)) == expected
    assert expected[0].schema.names[:2] == ["kafka_partition", "kafka_offset"]


def test_a_run_of_nothing_but_deleted_records_has_no_rows():
    assert rows_and_letters(run([message(0, None), message(1, None)])) == (None, [], 0)


def test_runs_end_where_the_partition_or_the_kind_changes():
    back = Replayed(*message(9))
    items = [message(0), message(1), message(5, partition=4), Progress(TOPIC, 4, 6), message(2), back, message(3)]
    found = list(in_runs(items))
    assert [type(each) for each in found] == [Records, Records, Progress, Records, Replayed, Records]
    assert found[5][0] == items[6]
    assert list(found[0]) == items[:2]
    assert [item for each in found for item in (each if isinstance(each, Records) else [each])] == items


def test_a_part_of_a_run_is_a_run():
    messages = [message(offset) for offset in range(5)]
    records = run(messages)
    assert list(records[1:3]) == messages[1:3]
    assert (len(records), records[-1], records.value_bytes) == (5, messages[4], 5 * len(GOOD))
    assert not records[5:]


def test_runs_that_are_joined_are_one_also_with_deleted_records():
    messages = [message(offset, (GOOD, None, b"", OTHER)[offset % 4]) for offset in range(9)]
    whole = joined([run(messages[:4]), run(messages[4:5]), run(messages[5:])])
    assert list(whole) == messages
    assert list(joined([whole[2:3], whole[3:8]])) == messages[2:8]
    assert [whole[at] for at in (0, 1, 2, 8, -1, -9)] == [messages[at] for at in (0, 1, 2, 8, -1, -9)]
    with pytest.raises(IndexError):
        whole[9]


def rows(messages) -> pa.Table:
    return pa.table({"offset": [each.offset for each in messages]})


def write(store, items, count=10, close=True) -> ParquetWriter:
    part = ParquetWriter(store, rows, lambda _: "0000000a", "group", rows=count, seconds=1000.0, name="x")
    part.write_batch([items])
    if close:
        part.close()
    else:
        part.drain = lambda: None
        part._writers.shutdown()
    return part


def archived(store) -> list[int]:
    return sorted(row["offset"] for file in current(store.files(TOPIC)) for row in store.read(file).to_pylist())


def ranges(store) -> list[tuple[int, int]]:
    return [(file.first, file.last) for file in store.files(TOPIC)]


def test_a_run_is_cut_where_a_file_is_full(store, committed):
    write(store, [run(map(message, range(7))), run(map(message, range(7, 32))), Progress(TOPIC, 3, 32)])
    assert ranges(store) == [(0, 9), (10, 19), (20, 29), (30, 31)]
    assert archived(store) == list(range(32))
    assert committed == {(TOPIC, 3): 32}


def test_a_run_over_midnight_is_two_files(store, committed):
    write(store, [run(message(offset, timestamp_ms=NOON_MS + offset * DAY_MS // 4) for offset in range(4))])
    assert [(file.day, file.first, file.last) for file in store.files(TOPIC)] == [
        (date(2026, 11, 22), 0, 1),
        (date(2026, 11, 23), 2, 3),
    ]


@pytest.mark.parametrize("lost", [False, True])
def test_runs_that_are_read_again_write_only_what_is_missing(store, committed, lost):
    write(store, [run(map(message, range(25)))], close=False)
    assert archived(store) == list(range(20))
    if lost:
        store.delete(store.files(TOPIC)[0])
    cuts = [0, 4, 18, 23, 40]
    write(store, [run(map(message, range(first, last))) for first, last in pairwise(cuts)], count=7)
    assert archived(store) == list(range(40))


def test_single_records_and_runs_keep_their_order_in_a_file(store, committed):
    items = [message(0), run(map(message, (1, 2))), message(3), message(4), run(map(message, (5, 6)))]
    write(store, items, count=100)
    (file,) = store.files(TOPIC)
    assert store.read(file)["offset"].to_pylist() == list(range(7))
