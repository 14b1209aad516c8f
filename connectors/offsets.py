"""Where a source starts in a partition."""

from collections.abc import Mapping

from confluent_kafka import OFFSET_BEGINNING, TopicPartition

Partition = tuple[str, int]


def starting_offset(saved: int | None, committed: int | None, committed_by: str | None, layout: str) -> int:
    """The offset to start from; `OFFSET_BEGINNING` when nothing is known.

    The recovery snapshot (`saved`) holds unless somebody else has moved the group since: another layout of
    instances that had the partition, or an operator who reset the group. Then, and without a snapshot, the group's
    offset holds.
    """
    if committed is None:
        return OFFSET_BEGINNING if saved is None else saved
    if saved is None or committed_by != layout:
        return committed
    return saved


def assignment(saved: Mapping[Partition, int], committed: list[TopicPartition], layout: str) -> dict[Partition, int]:
    """The starting offset of each partition, given the answer to the group's committed offsets."""
    return {
        (answer.topic, answer.partition): starting_offset(
            saved.get((answer.topic, answer.partition)),
            answer.offset if answer.offset >= 0 else None,
            answer.metadata,
            layout,
        )
        for answer in committed
    }
