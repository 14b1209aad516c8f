"""A post's way from the request to a follower's feed, and what many of them come to. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STAGES = ("commit", "debezium", "kafka", "dataflow", "rest")
"""What ends each stage, in order.

    commit     the transaction is committed (from the moment the request was sent)
    debezium   Debezium has handed the row change to its Kafka producer
    kafka      a consumer has the record
    dataflow   the post is in the follower's timeline in Redis
    rest       the follower's home timeline shows it
"""


@dataclass(slots=True)
class Journey:
    """Moments of one post's way in Unix seconds; None while unknown."""

    post_id: int
    sent: float | None = None
    committed: float | None = None
    captured: float | None = None
    consumed: float | None = None
    in_redis: float | None = None
    visible: float | None = None

    def stages(self) -> dict[str, float] | None:
        """Milliseconds of each stage; None while a moment is unknown.

        The clocks of commit and capture have a resolution of a millisecond, so a stage may come out as slightly
        negative; it is then zero.
        """
        moments = (self.sent, self.committed, self.captured, self.consumed, self.in_redis, self.visible)
        known = [moment for moment in moments if moment is not None]
        if len(known) < len(moments):
            return None
        return {
            stage: max(0.0, (end - start) * 1_000)
            for stage, start, end in zip(STAGES, known[:-1], known[1:], strict=True)
        }

    def total_ms(self) -> float | None:
        """Milliseconds from the request to the feed."""
        return None if self.visible is None or self.sent is None else (self.visible - self.sent) * 1_000


@dataclass(frozen=True, slots=True)
class Summary:
    """Percentiles in milliseconds over finished journeys."""

    journeys: int
    p50_ms: float
    p99_ms: float
    stages: dict[str, tuple[float, float]]
    """p50 and p99 of each stage; they do not add up, as a percentile of a sum is no sum of percentiles."""


def summarise(journeys: Iterable[Journey]) -> Summary | None:
    """The percentiles; None when no journey has come to its end."""
    finished = [journey for journey in journeys if journey.visible is not None]
    totals = [total for journey in finished if (total := journey.total_ms()) is not None]
    if not totals:
        return None
    known = [stages for journey in finished if (stages := journey.stages()) is not None]
    by_stage = {stage: [stages[stage] for stages in known] for stage in STAGES} if known else {}
    return Summary(
        journeys=len(totals),
        p50_ms=percentile(totals, 50),
        p99_ms=percentile(totals, 99),
        stages={stage: (percentile(values, 50), percentile(values, 99)) for stage, values in by_stage.items()},
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many per cent of the values do not exceed."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]
