"""Which making of a topic this is: a topic that was deleted and made anew has another id, and offsets from 0."""

from collections.abc import Callable

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from connectors.discovery import until_answered
from connectors.kafka_clients import REQUEST_TIMEOUT_SECONDS, client_config
from fanline.settings import Settings


def generations(settings: Settings, client_id: str, characters: int) -> Callable[[str], str]:
    """A function that gives the first hexadecimal characters of a topic's id; asks Kafka once a topic.

    Waits while Kafka is away; raises `DependencyUnavailable` when the process has been asked to stop meanwhile.
    """
    known: dict[str, str] = {}
    admin: list[AdminClient] = []

    def generation(topic: str) -> str:
        if topic not in known:
            if not admin:
                admin.append(AdminClient(client_config(settings, client_id)))
            known[topic] = until_answered(lambda: _ask(admin[0], topic), settings)[:characters]
        return known[topic]

    return generation


def _ask(admin: AdminClient, topic: str) -> str:
    described = admin.describe_topics(TopicCollection([topic]), request_timeout=REQUEST_TIMEOUT_SECONDS)
    uuid = described[topic].result().topic_id
    # Halves as signed numbers.
    halves = uuid.get_most_significant_bits(), uuid.get_least_significant_bits()
    if not any(halves):
        raise KafkaException(f"Kafka gives the topic {topic} no id.")
    return "".join(f"{half & (2**64 - 1):016x}" for half in halves)
