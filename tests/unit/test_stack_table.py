"""The process table: what starts after what, stops before what, and where each part listens."""

from pathlib import Path

import pytest

from connectors.flows import FLOWS
from fanline.settings import Settings
from stack.instances import set_instances
from stack.layout import Layout
from stack.table import STEPS, Process, closure, nodes, processes

LAYOUT = Layout(Settings(state_dir=Path("/somewhere")))


def names(all_nodes: object) -> list[str]:
    return [node.name for node in all_nodes]  # type: ignore[attr-defined]


def test_every_need_is_a_node_that_stands_earlier_in_the_table() -> None:
    seen: set[str] = set()
    for node in nodes(LAYOUT):
        assert set(node.needs) <= seen, node.name
        seen.add(node.name)


def test_a_part_stops_before_the_servers_that_it_needs() -> None:
    by_name = {process.name: process for process in processes(LAYOUT)}
    for process in by_name.values():
        servers = [node for node in closure(nodes(LAYOUT), [process.name]) if isinstance(node, Process)]
        for server in servers:
            if server.name != process.name:
                assert process.stop_stage < server.stop_stage, (process.name, server.name)


def test_connect_stops_before_the_broker_and_the_database_that_it_reads() -> None:
    stage = {process.name: process.stop_stage for process in processes(LAYOUT)}
    assert stage["api"] < stage["timelines"] < stage["connect"] < stage["kafka"] < stage["postgres"]


def test_no_two_parts_share_a_port() -> None:
    ports = [port for process in processes(LAYOUT) for port in process.ports.values()]
    assert len(ports) == len(set(ports))


def test_every_port_follows_its_setting() -> None:
    moved = Settings(
        postgres_port=1,
        redis_port=2,
        kafka_port=3,
        kafka_controller_port=4,
        connect_port=5,
        registry_port=6,
        opensearch_port=9277,
        opensearch_transport_port=8,
        flows_metrics_port=9,
        api_port=20,
    )
    before = {process.name: process for process in processes(Layout(Settings()))}
    after = {process.name: process for process in processes(Layout(moved))}
    for name, process in after.items():
        assert not set(process.ports.values()) & set(before[name].ports.values()), name
        assert process.probe.port in process.ports.values()
        assert str(process.probe.port) in process.url


def test_only_asks_for_what_a_part_needs_and_nothing_else() -> None:
    assert names(closure(nodes(LAYOUT), ["registry"])) == ["postgres", "registry"]
    everything = names(closure(nodes(LAYOUT), ["timelines"]))
    assert {"postgres", "valkey", "kafka", "registry", "migrate", "topics", "schemas"} <= set(everything)
    assert not {"opensearch", "connect", "api", "cards"} & set(everything)


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(KeyError, match="mysql"):
        closure(nodes(LAYOUT), ["mysql"])


def test_connectors_are_applied_after_schema_topics_and_contracts() -> None:
    (step,) = [step for step in STEPS if step.name == "connectors"]
    assert {"connect", "migrate", "topics", "schemas"} == set(step.needs)


def test_dataflows_and_api_are_restarted_when_they_end_and_servers_are_not() -> None:
    assert {process.name for process in processes(LAYOUT) if process.supervised} == {
        process.name for process in processes(LAYOUT) if process.kind != "server"
    }


def test_everything_that_the_stack_writes_is_in_the_state_folder() -> None:
    for process in processes(LAYOUT):
        assert LAYOUT.log(process.name).is_relative_to("/somewhere")
        for word in process.command:
            if word.startswith(str(Path("/somewhere"))):
                assert Path(word).is_relative_to("/somewhere")
    assert LAYOUT.servers.parent == Path("/somewhere/servers")
    assert Layout(Settings(servers_dir=Path("/shared"))).servers.parent == Path("/shared")


def test_a_scaled_flow_has_a_process_with_a_port_and_a_share_of_its_own_for_each_instance(tmp_path: Path) -> None:
    layout = Layout(Settings(state_dir=tmp_path))
    set_instances(layout, "timelines", 3)
    set_instances(layout, "cards", 2)
    set_instances(layout, "cards", 1)
    found = [process for process in processes(layout) if process.flow == "timelines"]
    assert names(found) == ["timelines", "timelines-1", "timelines-2"]
    shares = [
        (process.environment["FANLINE_FLOW_INSTANCE"], process.environment["FANLINE_FLOW_INSTANCES"])
        for process in found
    ]
    assert shares == [("0", "3"), ("1", "3"), ("2", "3")]
    ports = [port for process in processes(layout) for port in process.ports.values()]
    assert len(ports) == len(set(ports))
    assert [process.name for process in processes(layout) if process.flow == "cards"] == ["cards"]


def test_every_dataflow_that_there_is_stands_in_the_table() -> None:
    assert [process.flow for process in processes(LAYOUT) if process.flow] == list(FLOWS)
