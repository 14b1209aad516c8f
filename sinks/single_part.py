"""What our Bytewax sinks have in common: one part a process, its end, and the wiring of a stream into it."""

from typing import Any, TypeVar

import bytewax.operators as op
from bytewax.dataflow import Stream
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from connectors.lifecycle import failed_to_close
from fanline.logging import get_logger

X = TypeVar("X")
S = TypeVar("S")

PART = "0"

_log = get_logger(__name__)


class SinglePartSink(FixedPartitionedSink[X, S]):
    """A sink with one part: scaling is by processes, each of which has its own partitions of the source."""

    def list_parts(self) -> list[str]:
        """The one part."""
        return [PART]

    def part_fn(self, item_key: str) -> int:
        """Every item goes to the one part."""
        return 0


class SinglePartWriter(StatefulSinkPartition[X, S]):
    """The part of such a sink, which ends without raising.

    The engine closes parts in a destructor also when the flow has failed, and a second failure there aborts the process
    and hides the first. What fails here is raised when the engine has ended (dataflows/run.py).
    """

    def close(self) -> None:
        """Drain and release."""
        try:
            self.drain()
        except Exception as error:  # noqa: BLE001 - kept, and raised by dataflows/run.py
            _log.error("a sink could not be drained", error=repr(error))
            failed_to_close(error)
        finally:
            self.release()

    def drain(self) -> None:
        """Bring what was begun to its end; nothing comes after it."""
        self.snapshot()

    def release(self) -> None:
        """Give back threads and connections; must not raise."""


def output(step_id: str, up: Stream[Any], sink: FixedPartitionedSink[Any, Any]) -> None:
    """Write a stream, in its order, to a sink with one part."""
    keyed = op.flat_map_batch(f"{step_id}_key", up, lambda items: [(PART, item) for item in items])
    op.output(step_id, keyed, sink)
