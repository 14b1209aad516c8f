"""The contract of every sink: nothing is lost, whatever dies when, and the group's offset tells what is applied."""

from pathlib import Path

import pytest

from connectors.reset import reset_offsets
from tests.integration.contract.conftest import Bench, Target
from tests.integration.contract.valkey import wait_until


def test_all_records_arrive_and_the_groups_offset_reaches_the_end(bench: Bench, target: Target) -> None:
    topic = bench.topic()
    flow = bench.start(target.plan(topic))
    marks = bench.produce(topic, 2000)
    bench.until_applied(topic)
    assert target.marks() == marks
    # Idle again, then one record: its offset is committed without any further traffic.
    marks |= bench.produce(topic, 1)
    bench.until_applied(topic, timeout=2)
    assert target.marks() == marks
    assert flow.stop() == 2001


@pytest.mark.parametrize(("place", "at"), [("write", 1), ("write", 3), ("snapshot", 1)])
def test_a_crash_between_write_and_snapshot_loses_nothing(bench: Bench, target: Target, place: str, at: int) -> None:
    topic = bench.topic()
    marks = bench.produce(topic, 3000)
    assert bench.start(target.plan(topic, crash_in=place, crash_at=at)).ends() == 9
    flow = bench.start(target.plan(topic))
    bench.until_applied(topic)
    assert target.marks() == marks
    assert flow.stop() <= 3000


def test_a_stopped_flow_has_applied_what_it_read_and_goes_on_after_it(bench: Bench, target: Target) -> None:
    topic = bench.topic()
    marks = bench.produce(topic, 20_000)
    touched = bench.folder / "writing"
    flow = bench.start(target.plan(topic, touch=str(touched)))
    wait_until(touched.exists, "the flow writes")
    first = flow.stop()
    assert len(target.marks()) == first == sum(bench.committed(topic).values())
    flow = bench.start(target.plan(topic))
    bench.until_applied(topic)
    assert first + flow.stop() == 20_000
    assert target.marks() == marks


def test_rescaling_from_one_to_two_to_three_and_back_loses_and_repeats_nothing(bench: Bench, target: Target) -> None:
    topic = bench.topic(partitions=6)
    marks: set[str] = set()
    read = 0
    for instances in (1, 2, 3, 1):
        flows = [bench.start(target.plan(topic), instance, instances) for instance in range(instances)]
        marks |= bench.produce(topic, 600)
        bench.until_applied(topic)
        read += sum(flow.stop() for flow in flows)
        assert target.marks() == marks
    assert read == len(marks)


def test_a_replay_from_the_beginning_changes_nothing(bench: Bench, target: Target) -> None:
    topic = bench.topic()
    marks = bench.produce(topic, 500)
    flow = bench.start(target.plan(topic))
    bench.until_applied(topic)
    flow.stop()
    reset_offsets(bench.flow, "earliest", bench.stack.settings, (topic,))
    flow = bench.start(target.plan(topic))
    bench.until_applied(topic)
    assert flow.stop() == 500
    assert target.marks() == marks


def test_a_target_that_refuses_every_write_ends_the_flow_with_that_error_and_no_offset(
    bench: Bench, target: Target
) -> None:
    topic = bench.topic()
    plan, said = target.refusing(topic)
    bench.produce(topic, 3000)
    flow = bench.start(plan)
    # Not by an abort, which hides what was wrong.
    assert flow.ends() == 1, flow.errors
    assert said in flow.errors
    assert not any(bench.committed(topic).values())


@pytest.mark.parametrize("target", ["redis", "redis-cluster", "batch", "coalescing"], indirect=True)
def test_a_server_that_is_killed_and_restarted_in_the_middle_costs_nothing(bench: Bench, target: Target) -> None:
    topic = bench.topic()
    marks = bench.produce(topic, 5000)
    touched: Path = bench.folder / "writing"
    flow = bench.start(target.plan(topic, touch=str(touched)))
    wait_until(touched.exists, "the flow writes")
    victim = target.servers[-1]
    victim.kill()
    marks |= bench.produce(topic, 5000)
    ends = bench.offsets.ends(bench.offsets.partitions([topic]))
    assert bench.committed(topic) != ends
    victim.start()
    bench.until_applied(topic)
    assert target.marks() == marks
    assert flow.stop() == 10_000
