"""The simulated pipeline on a Redis Cluster of three real nodes, one of which may lose its data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.servers import Valkey, ask, valkey_cluster
from fanline.redis_nodes import RedisNodes
from fanline.resp import pack
from readmodels import followers
from readmodels.effects import Redis
from tests.simulation.test_timelines import WIPE, Simulation

FUNCTIONS = Path(followers.__file__).parent / "functions"


class Cluster:
    """Runs the simulation's batches on the nodes that have their keys."""

    def __init__(self, servers: list[Valkey]) -> None:
        self._servers = servers
        self.nodes = RedisNodes(servers[0].url, cluster=True)
        self.nodes.load_functions(FUNCTIONS)

    def __call__(self, batch: Redis) -> list[Any]:
        if batch is WIPE:
            self.flush(*self._servers)
            return []
        # The simulation gives many keys to one batch, as a flow does; each node runs its part in order.
        return self.nodes.execute([(command.key, command.data) for command in batch.commands])

    def flush(self, *servers: Valkey) -> None:
        for server in servers:
            ask(server.port, pack(b"FLUSHALL"))

    def lose_a_node(self, number: int) -> None:
        self.flush(self._servers[number % len(self._servers)])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with valkey_cluster(tmp_path_factory.mktemp("cluster")) as servers:
        running = Cluster(list(servers))
        yield running
        running.nodes.close()


@pytest.mark.parametrize("seed", range(20))
def test_on_a_cluster_every_timeline_equals_its_oracle(seed: int, cluster: Cluster) -> None:
    cluster(WIPE)
    simulation = Simulation(seed, cluster)
    simulation.run()
    expect_equality(simulation)


@pytest.mark.parametrize("seed", range(100, 106))
def test_when_one_node_loses_its_data_everything_is_built_again(seed: int, cluster: Cluster) -> None:
    cluster(WIPE)
    simulation = Simulation(seed, cluster)
    simulation.run()
    cluster.lose_a_node(seed)
    simulation.run()
    expect_equality(simulation)


def expect_equality(simulation: Simulation) -> None:
    for viewer in simulation.database.users:
        shown, floor = simulation.home(viewer)
        assert shown == [post_id for post_id in simulation.database.home(viewer) if post_id > floor]
