"""One `fanline up` or `fanline down` at a time in one state folder."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fanline.errors import FanlineError
from stack.layout import Layout

PATIENCE = 120.0  # seconds that a command waits for the one before it


class Occupied(FanlineError):
    """Another command has been changing this stack for too long."""


@contextmanager
def exclusive(layout: Layout) -> Iterator[None]:
    """Hold the stack for this command; raises `Occupied`, naming the holder, after `PATIENCE`."""
    layout.run.mkdir(parents=True, exist_ok=True)
    with (layout.run / "lock").open("a+") as file:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise Occupied(f"Another fanline command (process {file.read()}) is changing this stack.") from None
                time.sleep(0.1)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
