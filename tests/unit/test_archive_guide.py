"""The guide's queries run, on an archive of the contracts' example events."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from fanline import avro
from fanline.avro_columns import arrow_schema, decode
from readmodels.archive import ArchiveFile, day_of
from schemas import contracts
from sinks.parquet_query import open_archive, query
from sinks.parquet_store import ParquetStore

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "archive.md"
QUERIES = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


AUDIT = GUIDE.parents[1] / "operations" / "audit.md"
[OFFSETS] = re.findall(r"```sql\n(.*?)```", AUDIT.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def store(tmp_path: Path) -> ParquetStore:
    made = ParquetStore(tmp_path.as_uri())
    for name, contract in contracts.load().items():
        schema = avro.parse(contract.text)
        batch, _ = decode(schema, [avro.encode(1, schema, contract.example)], avro.HEADER.pack(0, 1))
        table = pa.Table.from_batches([batch], arrow_schema(schema))
        made.put(ArchiveFile(name, day_of(1_795_348_800_000), "00000000", 0, 0, 0), table)
    return made


def test_the_guide_has_queries() -> None:
    assert len(QUERIES) >= 3


@pytest.mark.parametrize("sql", QUERIES)
def test_a_query_of_the_guide_answers(store: ParquetStore, sql: str) -> None:
    answer = query(open_archive(store), sql)
    assert answer.num_rows >= (0 if "engagement" in sql else 1), sql


@pytest.mark.parametrize(
    ("offsets", "twice", "missing"), [([3, 4, 5], 0, 0), ([3, 5, 7], 0, 2), ([3, 3, 4], 1, 0), ([7], 0, 0)]
)
def test_the_query_of_the_audits_page_counts_what_is_there_twice_or_not(
    store: ParquetStore, offsets: list[int], twice: int, missing: int
) -> None:
    [file] = store.files("post.created")
    one = store.read(file)
    places = {"kafka_partition": pa.int32(), "kafka_offset": pa.int64()}
    rows = [one] * len(offsets)
    for name, kind in places.items():
        values = offsets if name == "kafka_offset" else [2] * len(offsets)
        rows = [row.append_column(name, pa.array([value], kind)) for row, value in zip(rows, values, strict=True)]
    store.put(file, pa.concat_tables(rows))
    answer = query(open_archive(store, every_record=True), OFFSETS)
    assert answer.to_pylist() == [
        {"kafka_partition": 2, "twice": twice, "missing": missing, "next": max(offsets) + 1}
    ]  # fmt: skip
