"""Moves a flow's consumer group to another place in its topics: an operator's decision, never a flow's own."""

from typing import Literal

from confluent_kafka import Consumer, TopicPartition

from connectors.discovery import list_partitions
from connectors.flows import EVERY_FLOW, group_of
from connectors.kafka_clients import REQUEST_TIMEOUT_SECONDS, consumer_config, typed_errors
from fanline.settings import Settings

Place = Literal["earliest", "latest"]


def reset_offsets(flow: str, place: Place, settings: Settings, topics: tuple[str, ...] | None = None) -> None:
    """Commit the first or the next offset of this instance's partitions; a source then starts there.

    The commit names no layout, so that it holds against the recovery snapshot. Raises `DependencyUnavailable`.
    """
    group = group_of(flow)
    consumer = Consumer(consumer_config(settings, group, f"{group}-reset"))
    try:
        with typed_errors(settings):
            offsets = []
            for topic, partition in list_partitions(consumer, topics or EVERY_FLOW[flow], settings):
                low, high = consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=REQUEST_TIMEOUT_SECONDS
                )
                offsets.append(TopicPartition(topic, partition, low if place == "earliest" else high))
            if offsets:
                consumer.commit(offsets=offsets, asynchronous=False)
    finally:
        consumer.close()
