"""What moving a flow to another place in its topics does: said before it is done."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import Consumer, TopicPartition

from connectors.applied import AppliedOffsets, Commit
from connectors.flows import group_of, topics_of
from connectors.kafka_clients import consumer_config, quiet_config, typed_errors
from connectors.offsets import Partition
from fanline.errors import ConfigurationError
from fanline.settings import Settings


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a flow is in one partition."""

    topic: str
    partition: int
    earliest: int
    """The oldest offset that is still there."""
    commit: Commit | None
    end: int

    @property
    def next(self) -> int:
        """The offset that the flow goes on from."""
        return self.earliest if self.commit is None else self.commit.offset


@dataclass(frozen=True, slots=True)
class Move:
    """One partition of a reset."""

    standing: Standing
    target: int

    @property
    def again(self) -> int:
        """Offsets that will be read once more."""
        return max(0, self.standing.next - self.target)

    @property
    def skipped(self) -> int:
        """Offsets that will never be read."""
        return max(0, self.target - self.standing.next)


def standings(flow: str, settings: Settings) -> list[Standing]:
    """Every partition that a flow reads; raises `DependencyUnavailable`."""
    offsets = AppliedOffsets(settings, "fanline-offsets")
    places = offsets.partitions(topics_of(flow))
    commits = offsets.commits({group_of(flow): places}).get(group_of(flow), {})
    starts, ends = offsets.starts(places), offsets.ends(places)
    return [Standing(*place, starts[place], commits[place], ends[place]) for place in places]


def plan(flow: str, to: str, chosen: Iterable[Standing], settings: Settings) -> list[Move]:
    """What it takes to go to `earliest`, `latest`, an offset or the first records after an ISO time.

    Raises `ConfigurationError` for a place that is none or that is not in the topics.
    """
    chosen = list(chosen)
    if to == "earliest":
        return [Move(each, each.earliest) for each in chosen]
    if to == "latest":
        return [Move(each, each.end) for each in chosen]
    if to.isdigit():
        return [Move(each, within(each, int(to))) for each in chosen]
    try:
        moment = datetime.fromisoformat(to)
    except ValueError:
        raise ConfigurationError(
            f"{to!r} is no place to go to: write earliest, latest, an offset, or a time such as 2026-11-22T17:30:00Z."
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    places: list[Partition] = [(each.topic, each.partition) for each in chosen]
    found = AppliedOffsets(settings, "fanline-offsets").at(places, int(moment.timestamp() * 1_000))
    return [Move(each, found[each.topic, each.partition]) for each in chosen]


def within(standing: Standing, offset: int) -> int:
    """The offset; raises `ConfigurationError` when the partition does not have it."""
    if not standing.earliest <= offset <= standing.end:
        place = f"{standing.topic} [{standing.partition}]"
        raise ConfigurationError(f"{place} has the offsets {standing.earliest} to {standing.end}, not {offset}.")
    return offset


def carry_out(flow: str, moves: Iterable[Move], settings: Settings) -> None:
    """Commit the targets; the flow must not run. Raises `DependencyUnavailable`.

    The commits name no instance, so that they hold against a recovery snapshot; the caller empties the stores, so
    that they still hold when the flow dies before its first snapshot.
    """
    group = group_of(flow)
    consumer = Consumer(consumer_config(settings, group, f"{group}-reset") | quiet_config())
    try:
        with typed_errors(settings):
            targets = [TopicPartition(move.standing.topic, move.standing.partition, move.target) for move in moves]
            if targets:
                consumer.commit(offsets=targets, asynchronous=False)
    finally:
        consumer.close()


def describe(move: Move) -> str:
    """One partition of a reset, in words."""
    standing = move.standing
    what = f"{standing.topic} [{standing.partition}]: "
    if move.again:
        return what + f"from {standing.next} back to {move.target}, {move.again} records are read again"
    if move.skipped:
        return what + f"from {standing.next} on to {move.target}, {move.skipped} records are skipped"
    return what + f"stays at {standing.next}"
