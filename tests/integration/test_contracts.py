"""The contracts in the real registry."""

import json
import uuid

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from connectors import topics
from connectors.topics import ensure_topics
from fanline import addresses, avro
from fanline.errors import DependencyUnavailable, MalformedEvent
from fanline.settings import Settings
from schemas import contracts
from schemas.compatibility import incompatibilities
from schemas.registry import encoder, register_all, registry_faults

V1 = {
    "type": "record",
    "name": "Probe",
    "fields": [{"name": "a", "type": "int"}, {"name": "b", "type": "string", "default": ""}],
}
CHANGES = [
    [{"name": "a", "type": "long"}, {"name": "b", "type": "string", "default": ""}],
    [{"name": "a", "type": "string"}],
    [{"name": "a", "type": "int"}],
    [{"name": "a", "type": "int"}, {"name": "c", "type": "string"}],
    [{"name": "a", "type": "int"}, {"name": "c", "type": ["null", "string"], "default": None}],
    [{"name": "a", "type": ["null", "int"], "default": None}],
    [{"name": "a", "type": "boolean"}],
]


@pytest.fixture(scope="module")
def registry(stack):
    register_all(stack.settings)
    return avro.SchemaRegistry(addresses.registry_url(stack.settings))


def test_registering_twice_gives_the_same_ids(stack, registry):
    assert register_all(stack.settings) == register_all(stack.settings)


def test_every_contract_is_registered_and_backward_transitive(registry):
    for contract in contracts.load().values():
        latest = registry.call("GET", f"/subjects/{contract.subject}/versions/latest").json()
        assert json.loads(latest["schema"]) == json.loads(contract.text)
        config = registry.call("GET", f"/config/{contract.subject}").json()
        assert config["compatibilityLevel"] == "BACKWARD_TRANSITIVE"


def test_the_registry_refuses_a_broken_contract_and_says_why(registry):
    broken = json.loads(contracts.load()["post.created"].text)
    broken["fields"] = [field for field in broken["fields"] if field["name"] != "created_at"]
    broken["fields"].append({"name": "made_at", "type": "long"})
    with pytest.raises(avro.RegistryRefused):
        registry.register("post.created-value", json.dumps(broken))


def test_the_running_registry_has_nothing_against_the_contracts(stack, registry):
    assert registry_faults(stack.settings) == []


@pytest.mark.parametrize("fields", CHANGES)
def test_our_compatibility_rules_agree_with_the_registry(registry, fields):
    subject = f"probe-{uuid.uuid4().hex}-value"
    registry.register(subject, json.dumps(V1))
    registry.accepted(registry.call("PUT", f"/config/{subject}", {"compatibility": "BACKWARD_TRANSITIVE"}))
    changed = {**V1, "fields": fields}
    verdict = registry.accepted(
        registry.call("POST", f"/compatibility/subjects/{subject}/versions/latest", {"schema": json.dumps(changed)})
    )
    assert verdict["is_compatible"] == (incompatibilities(changed, V1) == [])


def test_every_example_is_decoded_by_the_schema_that_the_registry_serves(stack, registry):
    encode = encoder(stack.settings).encode
    decode = avro.AvroDecoder(registry.schema).decode
    for name, contract in contracts.load().items():
        assert decode(encode(name, contract.example)).keys() == contract.example.keys()


def test_an_id_that_the_registry_does_not_know_is_the_records_fault(registry):
    with pytest.raises(avro.UnknownSchema, match="no schema with id 999999") as caught:
        avro.AvroDecoder(registry.schema).decode(b"\x00\x00\x0f\x42\x3f\x00")
    assert isinstance(caught.value, MalformedEvent)


def test_a_registry_that_is_down_is_not_the_records_fault():
    registry = avro.SchemaRegistry("http://127.0.0.1:1/apis/ccompat/v7")
    with pytest.raises(DependencyUnavailable, match="The schema registry does not answer"):
        avro.AvroDecoder(registry.schema).decode(b"\x00\x00\x00\x00\x01\x00")


def test_the_check_command_asks_the_registry(stack, registry):
    assert f"{len(contracts.load())} contracts hold." in stack.fanline("schemas", "check", "--registry").stdout


def test_topics_are_made_once_and_then_found(stack):
    ensure_topics(stack.settings)
    assert ensure_topics(stack.settings).created == []


def test_other_partitions_are_reported_and_left_alone(stack):
    wider = stack.settings.model_copy(update={"kafka_partitions": stack.settings.kafka_partitions + 1})
    ensure_topics(stack.settings)
    for _ in range(2):
        drifts = ensure_topics(wider, fix=True).drifts
        assert {drift.what for drift in drifts} == {"partitions"}
        assert "cdc.posts" in {drift.topic for drift in drifts}


def test_a_configuration_that_differs_is_reported_and_repaired_when_asked(stack):
    ensure_topics(stack.settings)
    admin = AdminClient({"bootstrap.servers": addresses.kafka_bootstrap_servers(stack.settings)})
    entry = ConfigEntry("retention.ms", "12345", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, "dead-letter.cards", incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)
    reported = stack.fanline("topics", check=False)
    assert (reported.returncode, reported.stdout) == (
        1,
        "dead-letter.cards: retention.ms is 12345, should be 2592000000\n",
    )
    stack.fanline("topics", "--fix")
    assert stack.fanline("topics").stdout == "Every topic is as it should be.\n"


def test_kafka_that_is_down_is_named_in_one_sentence(monkeypatch):
    monkeypatch.setattr(topics, "TIMEOUT_SECONDS", 1.0)
    with pytest.raises(DependencyUnavailable, match=r"Kafka does not answer at 127\.0\.0\.1:1"):
        ensure_topics(Settings(kafka_bootstrap_servers="127.0.0.1:1"))
