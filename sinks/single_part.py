"""What our Bytewax sinks have in common: one part a process, and the wiring of a stream into it."""

from typing import Any, TypeVar

import bytewax.operators as op
from bytewax.dataflow import Stream
from bytewax.outputs import FixedPartitionedSink

X = TypeVar("X")
S = TypeVar("S")

PART = "0"


class SinglePartSink(FixedPartitionedSink[X, S]):
    """A sink with one part: scaling is by processes, each of which has its own partitions of the source."""

    def list_parts(self) -> list[str]:
        """The one part."""
        return [PART]

    def part_fn(self, item_key: str) -> int:
        """Every item goes to the one part."""
        return 0


def output(step_id: str, up: Stream[Any], sink: FixedPartitionedSink[Any, Any]) -> None:
    """Write a stream, in its order, to a sink with one part."""
    keyed = op.flat_map_batch(f"{step_id}_key", up, lambda items: [(PART, item) for item in items])
    op.output(step_id, keyed, sink)
