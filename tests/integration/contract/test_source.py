"""The contract of the source and of the dead letters, whatever the sink."""

import json
import secrets

from confluent_kafka import TopicPartition

from connectors.flows import dead_letter_topic
from connectors.reset import reset_offsets
from fanline.addresses import registry_url
from fanline.avro import SchemaRegistry, encode, parse
from tests.integration.contract.child import Plan
from tests.integration.contract.conftest import Bench
from tests.integration.contract.valkey import wait_until

SCHEMA = json.dumps(
    {
        "type": "record",
        "name": "streamio",
        "fields": [
            {"name": "id", "type": "long"},
            {"name": "__op", "type": "string"},
            {"name": "__deleted", "type": "string"},
            {"name": "__source_sequence", "type": "string"},
            {"name": "__source_ts_ms", "type": "long"},
        ],
    }
)


def dropping(bench: Bench, *topics: str, decode: bool = False) -> Plan:
    return Plan(bench.flow, list(topics), "none", decode=decode)


def good_value(bench: Bench) -> bytes:
    registry = SchemaRegistry(registry_url(bench.stack.settings))
    schema_id = registry.register(f"{bench.name}-value", SCHEMA)
    record = {"id": 1, "__op": "c", "__deleted": "false", "__source_sequence": '["1","2"]', "__source_ts_ms": 1}
    return encode(schema_id, parse(SCHEMA), record)


def test_the_groups_offset_reaches_the_end_though_every_record_is_filtered_and_some_topics_are_empty(
    bench: Bench,
) -> None:
    topic, empty = bench.topic(), bench.topic("empty")
    bench.produce(topic, 1000)
    flow = bench.start(dropping(bench, topic, empty))
    bench.until_applied(topic)
    bench.until_applied(empty)
    assert flow.stop() == 1000


def test_an_offset_that_is_gone_ends_the_flow_with_a_sentence_that_says_what_to_do(bench: Bench) -> None:
    topic = bench.topic(partitions=1)
    bench.produce(topic, 100)
    flow = bench.start(dropping(bench, topic))
    bench.until_applied(topic)
    flow.stop()
    bench.produce(topic, 100)
    deleted = bench.admin.delete_records([TopicPartition(topic, 0, 150)])
    next(iter(deleted.values())).result(10)
    refused = bench.start(dropping(bench, topic))
    assert refused.ends() == 1
    errors = refused.errors
    sentence = errors.splitlines()[-1]
    assert f"Offset 100 of {topic} [0]" in sentence
    assert f"fanline dataflow {bench.flow} --reset-to earliest" in sentence
    assert not any(line.startswith("Traceback") or "panicked" in line for line in errors.splitlines())
    # What the sentence says helps.
    reset_offsets(bench.flow, "earliest", bench.stack.settings, (topic,))
    flow = bench.start(dropping(bench, topic))
    bench.until_applied(topic)
    assert flow.stop() == 50


def test_a_topic_and_partitions_that_come_later_are_read_without_a_restart(bench: Bench) -> None:
    topic = bench.topic(partitions=1)
    later = f"{bench.name}-later"
    flow = bench.start(dropping(bench, topic, later), FANLINE_KAFKA_DISCOVERY_SECONDS="0.1")
    bench.produce(topic, 10)
    bench.until_applied(topic)
    bench.grow(topic, 3)
    bench.produce(topic, 30)
    bench.until_applied(topic)
    assert bench.topic("later", 2) == later
    bench.produce(later, 20)
    bench.until_applied(later)
    assert flow.stop() == 60


def test_a_second_process_of_the_same_instance_is_refused(bench: Bench) -> None:
    topic = bench.topic()
    first = bench.start(dropping(bench, topic))
    bench.until_applied(topic)
    wait_until(lambda: all(offset == 0 for offset in bench.committed(topic).values()), "the first runs")
    bench.produce(topic, 1)
    bench.until_applied(topic)
    refused = bench.start(dropping(bench, topic))
    assert refused.ends() == 2
    errors = refused.errors
    assert "runs already" in errors.splitlines()[-1]
    first.stop()


def test_bad_records_become_dead_letters_and_the_good_ones_pass(bench: Bench) -> None:
    topic = bench.topic(partitions=1, prefix="cdc.")
    value = good_value(bench)
    bench.produce(topic, 50, value)
    bench.produce(topic, 1, b"\x01 no framing")
    bench.produce(topic, 1, value[:-3])
    bench.produce(topic, 1, b"\x00\x7f\xff\xff\xf0unknown schema")
    bench.produce(topic, 50, value)
    flow = bench.start(dropping(bench, topic, decode=True))
    bench.until_applied(topic)
    assert flow.stop() == 103
    letters = bench.read(dead_letter_topic(bench.flow))
    headers = [dict(letter.headers()) for letter in letters]
    assert sorted(int(h["original_offset"]) for h in headers) == [50, 51, 52]
    for letter, header in zip(letters, headers, strict=True):
        assert header["original_topic"].decode() == topic
        assert header["original_partition"] == b"0"
        assert int(header["original_timestamp"]) > 1_700_000_000_000
        assert header["reason"]
        assert letter.key() == b"0"
    by_offset = {
        int(h["original_offset"]): (h["reason"].decode(), x.value()) for h, x in zip(headers, letters, strict=True)
    }
    assert by_offset[50][1] == b"\x01 no framing"
    assert "no schema" in by_offset[52][0]


def test_a_record_of_the_largest_size_still_becomes_a_dead_letter(bench: Bench) -> None:
    topic = bench.topic(partitions=1, prefix="cdc.")
    # With its headers the letter is larger than a broker takes by default; incompressible, as size is what counts.
    largest = b"\x01" + secrets.token_bytes(1_048_588 - 100)
    bench.produce(topic, 1, largest)
    flow = bench.start(dropping(bench, topic, decode=True))
    bench.until_applied(topic)
    flow.stop()
    (letter,) = bench.read(dead_letter_topic(bench.flow))
    header = dict(letter.headers())
    assert letter.value() == largest or int(header["omitted_value_bytes"]) == len(largest)


def test_too_many_bad_records_stop_the_flow_and_stay_in_their_topic(bench: Bench) -> None:
    topic = bench.topic(partitions=1, prefix="cdc.")
    good = good_value(bench)
    bench.produce(topic, 200, good)
    flow = bench.start(dropping(bench, topic, decode=True))
    bench.until_applied(topic)
    flow.stop()
    bench.produce(topic, 300, b"poison")
    refused = bench.start(dropping(bench, topic, decode=True), FANLINE_DEAD_LETTER_CONSECUTIVE="20")
    assert refused.ends() == 1
    errors = refused.errors
    assert "20 records in a row" in errors.splitlines()[-1]
    assert bench.committed(topic)[topic, 0] == 200
    assert len(bench.read(dead_letter_topic(bench.flow))) == 20
