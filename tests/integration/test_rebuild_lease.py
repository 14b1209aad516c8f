"""One rebuild of a model at a time, on a Redis of its own."""

from collections.abc import Iterator
from unittest import mock

import pytest
from pydantic import SecretStr

from fanline.errors import ConfigurationError
from fanline.redis_nodes import open_redis_nodes
from fanline.settings import Settings
from rebuild.lease import Lease, LeaseLost, alone
from tests.integration.contract.valkey import Valkey, standalone, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with standalone(tmp_path_factory.mktemp("lease")) as [valkey]:
        yield valkey


@pytest.fixture
def settings(server: Valkey) -> Settings:
    return Settings(redis_url=SecretStr(server.url))


def test_a_second_rebuild_of_a_model_is_refused_and_one_of_another_is_not(settings: Settings) -> None:
    with alone(settings, "cards"):
        with pytest.raises(ConfigurationError, match="Another rebuild of cards is going on"), alone(settings, "cards"):
            pytest.fail("two rebuild one model")
        with alone(settings, "timelines") as other:
            other.require()
    with alone(settings, "cards") as lease:
        lease.require()


def test_a_rebuild_that_goes_on_keeps_its_lease(server: Valkey, settings: Settings) -> None:
    with alone(settings, "cards", seconds=0.3) as lease, server.client as client:
        renewed = mock.Mock(wraps=lease.renew)
        with mock.patch.object(Lease, "renew", renewed):
            wait_until(lambda: renewed.call_count >= 12, "the lease is renewed beyond its time")
        lease.require()
        assert client.pttl(b"rebuilding:{cards}") > 0


def test_a_crash_leaves_nothing_behind_for_long_and_who_was_held_up_finds_out(settings: Settings) -> None:
    nodes = open_redis_nodes(settings)
    try:
        # Nobody renews it.
        crashed = Lease(nodes, "cards", 0.2)
        crashed.take()

        def is_free() -> bool:
            try:
                with alone(settings, "cards"):
                    return True
            except ConfigurationError:
                return False

        assert not is_free()
        wait_until(is_free, "the lease expires")
        with alone(settings, "cards") as lease:
            with pytest.raises(LeaseLost):
                crashed.require()
            crashed.renew()
            crashed.give_back()
            with pytest.raises(LeaseLost):
                crashed.require()
            assert not is_free()
            lease.require()
    finally:
        nodes.close()
