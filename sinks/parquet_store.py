"""Where the archive's files are: a local folder or S3. A file is there whole or not at all."""

import contextlib
import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from fanline.errors import ConfigurationError
from fanline.settings import Settings
from readmodels.archive import ArchiveFile, folder_of, parse

# Zstandard's own default: half of zlib's size at several times its speed.
COMPRESSION_LEVEL = 3
_PART = ".part"


class ParquetStore:
    """The files below a URL: `s3://bucket/prefix` (options of pyarrow's `S3FileSystem` as query), `file:///path`.

    S3's credentials come from where AWS' tools look (AWS_ACCESS_KEY_ID and so on). Methods raise `OSError` when the
    folder or the server does not let them; the constructor raises `ConfigurationError` on a URL that means nothing.
    """

    def __init__(self, url: str) -> None:
        try:
            self.filesystem, root = pafs.FileSystem.from_uri(url)
        except (pa.ArrowInvalid, ValueError, OSError) as error:
            raise ConfigurationError(f"FANLINE_ARCHIVE_URL cannot be used: {error}.") from error
        self.root = root.rstrip("/")
        self.is_local = isinstance(self.filesystem, pafs.LocalFileSystem)

    def path(self, file: ArchiveFile) -> str:
        """The file's path in `filesystem`."""
        return f"{self.root}/{file.path}"

    def topics(self) -> list[str]:
        """Topics that have a folder."""
        selector = pafs.FileSelector(self.root, allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)

    def days(self, topic: str) -> list[date]:
        """Days of a topic that have a folder."""
        selector = pafs.FileSelector(f"{self.root}/{topic}", allow_not_found=True)
        names = [info.base_name for info in self.filesystem.get_file_info(selector)]
        return sorted(date.fromisoformat(name.removeprefix("day=")) for name in names if name.startswith("day="))

    def files(self, topic: str, day: date | None = None) -> list[ArchiveFile]:
        """Every file of a topic, or of one of its days, superseded ones too."""
        folder = f"{self.root}/{topic if day is None else folder_of(topic, day)}"
        infos = self.filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True, recursive=True))
        return sorted(file for info in infos if (file := parse(info.path[len(self.root) + 1 :])) is not None)

    def modified_ns(self, files: Iterable[ArchiveFile]) -> dict[ArchiveFile, int]:
        """When each file that is there was written, in nanoseconds since the epoch."""
        known = list(files)
        infos = self.filesystem.get_file_info([self.path(file) for file in known])
        return {
            file: info.mtime_ns
            for file, info in zip(known, infos, strict=True)
            if info.type == pafs.FileType.File and info.mtime_ns is not None
        }

    def put(self, file: ArchiveFile, table: pa.Table) -> None:
        """Write a file; when this returns it is durable, and nobody ever sees a part of it."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", compression_level=COMPRESSION_LEVEL)
        data = sink.getvalue()
        if self.is_local:
            _put_locally(Path(self.path(file)), data)
        else:
            # An object becomes visible when its upload is complete.
            with self.filesystem.open_output_stream(self.path(file)) as stream:
                stream.write(data)

    def rows(self, file: ArchiveFile) -> int:
        """How many rows a file has, from its footer."""
        with self.filesystem.open_input_file(self.path(file)) as source:
            return int(pq.ParquetFile(source).metadata.num_rows)

    def read(self, file: ArchiveFile) -> pa.Table:
        """All rows of a file."""
        return pq.read_table(self.path(file), filesystem=self.filesystem, partitioning=None)

    def delete(self, file: ArchiveFile) -> None:
        """Delete a file; one that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path(file))

    def delete_parts(self) -> int:
        """Delete what crashed writers have left of files that never became whole; only while nobody writes."""
        if not self.is_local:
            return 0
        parts = list(Path(self.root).glob(f"*/day=*/.*{_PART}"))
        for part in parts:
            part.unlink(missing_ok=True)
        return len(parts)


def open_store(settings: Settings) -> ParquetStore:
    """The store of FANLINE_ARCHIVE_URL, or of a folder in the state folder; raises `ConfigurationError`."""
    return ParquetStore(settings.archive_url or (settings.state_dir / "archive").resolve().as_uri())


def _put_locally(path: Path, data: Any) -> None:
    _make_folder(path.parent)
    part = path.with_name(f".{path.stem}-{os.getpid()}{_PART}")
    with part.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    # The rename itself is durable only when the folder is.
    _sync(path.parent)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each durable as an entry of its parent."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
