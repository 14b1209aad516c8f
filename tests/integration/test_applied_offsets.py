"""What groups have committed, while Kafka does not answer for longer than one waits."""

import signal
import uuid

import psutil
import pytest
from confluent_kafka import Consumer, TopicPartition

from connectors import applied
from connectors.applied import AppliedOffsets, Commit
from connectors.kafka_clients import consumer_config
from connectors.topics import ensure_topics
from fanline.errors import DependencyUnavailable
from tests.conftest import Stack


def test_a_coordinator_that_is_silent_is_asked_once_and_its_answer_counts_when_it_comes(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that times out can abort the process (librdkafka #3663)."""
    ensure_topics(stack.settings)
    group, place = f"asked-{uuid.uuid4().hex[:8]}", ("post.created", 0)
    consumer = Consumer(consumer_config(stack.settings, group, "asked"))
    consumer.commit(offsets=[TopicPartition(*place, 7, metadata="0/1")], asynchronous=False)
    consumer.close()
    offsets = AppliedOffsets(stack.settings, "asked")
    assert offsets.commits({group: [place]}) == {group: {place: Commit(7, "0/1")}}
    monkeypatch.setattr(applied, "REQUEST_TIMEOUT_SECONDS", 0.5)
    kafka = psutil.Process(stack.pid("kafka"))
    kafka.send_signal(signal.SIGSTOP)
    try:
        for _ in range(3):
            with pytest.raises(DependencyUnavailable, match="does not tell the offsets"):
                offsets.committed({group: [place]})
        [asked] = offsets._asked.values()
    finally:
        kafka.send_signal(signal.SIGCONT)
    assert asked.result(30).topic_partitions[0].offset == 7
    assert offsets.committed({group: [place], "nobody": []}) == {group: {place: 7}}
    assert offsets._asked == {}
