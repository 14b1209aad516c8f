"""Fixtures of the tests of the Parquet archive."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors import lifecycle
from sinks import parquet
from sinks.parquet_store import ParquetStore


@pytest.fixture
def store(tmp_path: Path) -> ParquetStore:
    """An archive in a folder."""
    return ParquetStore((tmp_path / "archive").as_uri())


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[tuple[str, int], int]]:
    """The offsets that the Parquet sink has committed."""
    found: dict[tuple[str, int], int] = {}

    def commit(group, progress):
        found.update({(item.topic, item.partition): item.offset for item in progress})

    monkeypatch.setattr(parquet, "commit_progress", commit)
    yield found
    lifecycle.reset()
