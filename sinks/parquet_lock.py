"""One at a time: who rewrites files of the archive writes what it has read, and would undo what another did meanwhile.

In a local folder it is a lock of the operating system, which ends with its process. S3 has none that pyarrow can take:
there everybody writes a mark of their own, looks who else has one, and goes on only if nobody has; else it takes its
mark away and tries again. Listings show what was written before, so of two at least one sees the other. A process that
is killed leaves its mark, which the others then name.
"""

import contextlib
import fcntl
import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow.fs as pafs

from fanline.errors import FanlineError
from sinks.parquet_store import ParquetStore

POLL_SECONDS = 0.2
LOCK = ".rewriting"
MARK = "rewriting-"


class ArchiveBusy(FanlineError):
    """Somebody else rewrites the archive, and has not finished in time."""


@contextlib.contextmanager
def rewriting(store: ParquetStore, wait_seconds: float) -> Iterator[None]:
    """Be the only one that rewrites files of a store; raises `ArchiveBusy` when that cannot be had in time."""
    with _locked(Path(store.root), wait_seconds) if store.is_local else _marked(store, wait_seconds):
        yield


@contextlib.contextmanager
def _locked(root: Path, wait_seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + wait_seconds
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ArchiveBusy(
                        f"The archive is being compacted or erased from by another process, which holds {file.name}."
                    ) from None
                time.sleep(POLL_SECONDS)
        yield


@contextlib.contextmanager
def _marked(store: ParquetStore, wait_seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + wait_seconds
    mark = f"{store.root}/{MARK}{socket.gethostname()}-{os.getpid()}-{uuid4().hex}"
    while True:
        with store.filesystem.open_output_stream(mark) as stream:
            stream.write(b"")
        try:
            others = _marks(store) - {mark}
            if not others:
                yield
                return
        finally:
            store.filesystem.delete_file(mark)
        if time.monotonic() > deadline:
            raise ArchiveBusy(
                f"The archive is being compacted or erased from by another process, whose mark is {min(others)}."
                " If it was killed, delete the mark."
            )
        # Two that have met must not meet again.
        time.sleep(POLL_SECONDS * random.uniform(1, 3))


def _marks(store: ParquetStore) -> set[str]:
    found = store.filesystem.get_file_info(pafs.FileSelector(store.root, allow_not_found=True))
    return {info.path for info in found if info.base_name.startswith(MARK)}
