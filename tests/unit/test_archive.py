"""The archive's file names, and what readers and the writer conclude from them."""

from dataclasses import replace
from datetime import date

import pytest

from readmodels.archive import ArchiveFile, Coverage, OverlappingFiles, current, day_of, parse, superseded
from readmodels.archive_schema import RECORD_COLUMNS
from schemas import contracts

FILE = ArchiveFile("post.created", date(2026, 11, 22), "9f3c01ab", 2, 500, 999)


def test_a_name_says_what_the_content_is():
    assert FILE.path == ("post.created/day=2026-11-22/9f3c01ab-0002-00000000000000000500-00000000000000000999.parquet")
    assert parse(FILE.path) == FILE


@pytest.mark.parametrize(
    "path", ["post.created/day=2026-11-22/.9f3c01ab-0002-00000000000000000500-1.part", "x.parquet", "a/day=2026/b"]
)
def test_other_files_are_not_taken_for_the_archives(path):
    assert parse(path) is None


def test_names_sort_as_their_offsets_do():
    later = replace(FILE, first=10_000, last=10_000)
    assert sorted([later.path, FILE.path]) == [FILE.path, later.path]


def test_a_day_is_one_in_utc():
    assert day_of(1_795_391_999_999) == date(2026, 11, 22)
    assert day_of(1_795_392_000_000) == date(2026, 11, 23)


def test_readers_take_the_larger_file_that_compaction_has_written():
    small = [FILE, replace(FILE, first=1000, last=1099)]
    whole = replace(FILE, last=1099)
    assert current(small) == small
    assert current([*small, whole]) == [whole]
    assert superseded([*small, whole]) == small
    assert current([whole]) == [whole]


def test_files_of_other_partitions_days_and_generations_do_not_supersede():
    others = [replace(FILE, partition=3), replace(FILE, day=date(2026, 11, 23)), replace(FILE, generation="00000000")]
    inside = replace(FILE, first=600, last=700)
    assert inside in current([inside, *others])


def test_two_writers_of_one_partition_are_noticed():
    with pytest.raises(OverlappingFiles, match=r"offsets 900 to 999 of post\.created \[2\] twice"):
        current([FILE, replace(FILE, first=900, last=1200)])


def test_coverage_knows_the_records_that_are_in_files():
    coverage = Coverage([replace(FILE, first=0, last=99), FILE])
    found = [offset for offset in (0, 99, 100, 499, 500, 999, 1000) if coverage.has("9f3c01ab", 2, offset)]
    assert found == [0, 99, 500, 999]
    assert not coverage.has("9f3c01ab", 1, 50)
    assert not coverage.has("00000000", 2, 50)
    assert coverage.newest("9f3c01ab", 2) == 999
    assert coverage.newest("9f3c01ab", 0) == -1


def test_coverage_holds_beside_the_small_files_of_a_compaction():
    coverage = Coverage([replace(FILE, first=0, last=2000), FILE, replace(FILE, first=5, last=5)])
    assert coverage.has("9f3c01ab", 2, 1500)


def test_no_contract_has_a_column_of_the_archives_own():
    own = {field.name for field in RECORD_COLUMNS} | {"day"}
    for name, contract in contracts.load().items():
        assert own.isdisjoint(contract.example), name
