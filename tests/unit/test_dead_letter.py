"""The brake, and the rule by which a source finds its place."""

import pytest
from confluent_kafka import OFFSET_BEGINNING

from connectors.brake import Brake
from connectors.flows import owned
from connectors.offsets import starting_offset
from connectors.watermark import has_passed
from fanline.errors import DeadLetterBrake


def brake(window: int = 100, ratio: float = 0.1, consecutive: int = 5) -> Brake:
    return Brake("cards", window=window, ratio=ratio, consecutive=consecutive)


def test_a_bad_record_now_and_then_passes_for_ever() -> None:
    tested = brake()
    for _ in range(1000):
        tested.accepted(20)
        tested.rejected("why")


def test_rejections_in_a_row_stop_the_flow_with_their_number_and_reason() -> None:
    tested = brake()
    for _ in range(4):
        tested.rejected("why")
    with pytest.raises(
        DeadLetterBrake, match=r"flow cards stops, as it had to reject 5 records in a row.*because: why"
    ):
        tested.rejected("why")


def test_an_accepted_record_ends_a_row() -> None:
    tested = brake(ratio=1)
    for _ in range(10):
        for _ in range(4):
            tested.rejected("why")
        tested.accepted()


def test_too_large_a_share_stops_the_flow_even_when_never_in_a_row() -> None:
    tested = brake()
    for _ in range(9):
        tested.accepted(3)
        tested.rejected("why")
    tested.accepted(3)
    with pytest.raises(DeadLetterBrake, match="10 of the last 40 records"):
        tested.rejected("why")


def test_rejections_that_left_the_window_do_not_count() -> None:
    tested = brake()
    for _ in range(9):
        tested.accepted()
        tested.rejected("why")
    tested.accepted(100)
    for _ in range(9):
        tested.accepted()
        tested.rejected("why")


@pytest.mark.parametrize(
    ("saved", "committed", "by", "start"),
    [
        (None, None, None, OFFSET_BEGINNING),
        (7, None, None, 7),
        (None, 9, "0/1", 9),
        (7, 9, "0/1", 7),  # the snapshot of this very instance
        (7, 9, "1/2", 9),  # another instance has had the partition since
        (7, 3, "", 3),  # an operator has reset the group
        (7, 3, None, 3),
    ],
)
def test_a_source_trusts_its_snapshot_unless_somebody_else_moved_the_group(
    saved: int | None, committed: int | None, by: str | None, start: int
) -> None:
    assert starting_offset(saved, committed, by, "0/1") == start


@pytest.mark.parametrize("instances", [1, 2, 3, 5])
def test_every_partition_has_exactly_one_instance(instances: int) -> None:
    for partition in range(12):
        assert sum(owned(partition, instance, instances) for instance in range(instances)) == 1


def test_a_watermark_passes_when_every_group_has_every_partition() -> None:
    wanted = {"a": {("t", 0): 5, ("t", 1): 0}, "b": {("u", 0): 2}}
    assert has_passed(wanted, {"a": {("t", 0): 5}, "b": {("u", 0): 3}})
    assert not has_passed(wanted, {"a": {("t", 0): 4}, "b": {("u", 0): 3}})
    assert not has_passed(wanted, {"a": {("t", 0): 5}})
