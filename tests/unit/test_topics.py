"""Topics as they should be, and how others differ."""

from connectors.topics import Topic, compare, wanted
from fanline.settings import Settings
from migrations.publications import CAPTURED
from schemas import contracts

TOPIC = Topic("cdc.posts", 4, 1, {"cleanup.policy": "compact,delete", "retention.ms": "5"})


def test_every_captured_table_and_event_has_its_topic():
    names = [topic.name for topic in wanted(Settings())]
    assert {f"cdc.{table}" for table in CAPTURED} | contracts.load().keys() <= set(names)
    assert len(names) == len(set(names))


def test_rows_are_compacted_and_never_expire_while_events_do():
    topics = {topic.name: topic.config for topic in wanted(Settings())}
    assert topics["cdc.posts"]["cleanup.policy"] == "compact"
    assert "retention.ms" not in topics["cdc.posts"]
    assert topics["post.created"]["cleanup.policy"] == "delete"


def test_on_cockroachdb_topics_take_messages_without_a_key_and_the_outbox_has_one():
    topics = {topic.name: topic for topic in wanted(Settings(database_dialect="cockroach"))}
    assert {"cdc.outbox", "dead-letter.outbox", "retry.outbox"} == topics.keys() - {t.name for t in wanted(Settings())}
    assert not [name for name, topic in topics.items() if "compact" in topic.config["cleanup.policy"]]
    assert topics["cdc.posts"].config["retention.ms"] == "-1"


def test_partitions_follow_the_setting_where_keys_spread():
    topics = {topic.name: topic.partitions for topic in wanted(Settings(kafka_partitions=12))}
    assert (topics["cdc.posts"], topics["post.created"], topics["cdc.heartbeat"]) == (12, 12, 1)


def test_a_topic_as_it_should_be_does_not_drift():
    assert compare(TOPIC, 4, 1, {"cleanup.policy": "delete,compact", "retention.ms": "5", "other": "x"}) == []


def test_each_difference_is_told():
    drifts = compare(TOPIC, 2, 3, {"cleanup.policy": "delete"})
    assert [(drift.what, drift.current, drift.wanted) for drift in drifts] == [
        ("partitions", "2", "4"),
        ("replication factor", "3", "1"),
        ("cleanup.policy", "delete", "compact,delete"),
        ("retention.ms", "", "5"),
    ]
