"""Builds of the real dataflows that cannot read some records, in processes of their own: a bad deployment."""

import multiprocessing
import os
import sys
import zlib
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from connectors.flows import FLOWS
from tests.conftest import Stack
from tests.integration.contract.valkey import wait_until

REASON = "This build cannot read the record."

# Importing takes longer than all that the flows do in these tests: the processes are forked from one that has done so.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["__main__", "dataflows.run", *(f"dataflows.{flow}" for flow in FLOWS)])


def unreadable(value: bytes | None, percent: int) -> bool:
    """Whether a build that cannot read so many per cent of all records cannot read this one."""
    return value is not None and zlib.crc32(value) % 100 < percent


class Build:
    """One flow's process, in the place of the one that the stack runs."""

    def __init__(
        self,
        stack: Stack,
        flow: str,
        percent: int,
        folder: Path,
        *,
        prepare: Callable[[], None] | None = None,
        **settings: str,
    ) -> None:
        """`prepare` is called in the process before the flow is built."""
        self.flow = flow
        self._said = folder / f"{flow}-{percent}.log"
        environment = stack.environment | {
            "FANLINE_FLOW_INSTANCE": "0",
            "FANLINE_FLOW_INSTANCES": "1",
            "FANLINE_EPOCH_SECONDS": "0.2",
            "FANLINE_ARCHIVE_FILE_SECONDS": "1",
            **settings,
        }
        self._process = FORKS.Process(target=run, args=(flow, percent, environment, str(self._said), prepare))
        self._process.start()

    @property
    def said(self) -> str:
        """What the process has said."""
        return self._said.read_text() if self._said.exists() else ""

    def stop(self) -> None:
        """SIGTERM, and a clean end."""
        wait_until(lambda: "flow starts" in self.said, f"{self.flow} handles signals")
        self._process.terminate()
        assert self.ends() == 0, self.said

    def ends(self, timeout: float = 60) -> int:
        """The exit code of a process that ends."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"{self.flow} does not end: {self.said}"
        return self._process.exitcode

    def close(self) -> None:
        """Kill what still runs."""
        self._process.kill()
        self._process.join()
        self._process.close()


def run(
    flow: str, percent: int, environment: dict[str, str], said: str, prepare: Callable[[], None] | None = None
) -> None:
    """Run a flow that rejects some records, in this process; ends it with the flow's exit code."""
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.update(environment)
    from dataflows.run import main
    from fanline.settings import get_settings

    get_settings.cache_clear()
    if percent:
        reject(percent)
    if prepare is not None:
        prepare()
    code = main([flow])
    sys.stderr.flush()
    os._exit(code)


def reject(percent: int) -> None:
    """Break what reads records in this process."""
    import numpy

    from connectors import record_columns
    from dataflows import archive_rows
    from fanline.avro import AvroDecoder, MalformedAvro
    from fanline.avro_columns import decode as decode_columns

    decode = AvroDecoder.decode

    def broken(self: AvroDecoder, data: bytes) -> Any:
        if unreadable(data, percent):
            raise MalformedAvro(REASON)
        return decode(self, data)

    def broken_columns(schema: Any, pieces: list[bytes], framing: bytes, sizes: Any = None) -> tuple[Any, Any]:
        batch, bad = decode_columns(schema, pieces, framing, sizes)
        data = b"".join(pieces)
        ends = accumulate(map(len, pieces) if sizes is None else sizes.tolist(), initial=0)
        return batch, bad | numpy.array([unreadable(data[start:end], percent) for start, end in pairwise(ends)])

    AvroDecoder.decode = broken  # type: ignore[method-assign]
    for module in (record_columns, archive_rows):
        vars(module)["decode"] = broken_columns
