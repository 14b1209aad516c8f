"""Reads stretches of topics."""

from contextlib import closing

from confluent_kafka import Consumer, TopicPartition

from connectors.applied import Offsets
from connectors.kafka_clients import consumer_config
from connectors.messages import Message, message_of
from fanline.settings import Settings


def records_between(settings: Settings, starts: Offsets, ends: Offsets) -> list[Message]:
    """Every record from the starts (0 where there is none) up to the ends."""
    open_places = {place for place, end in ends.items() if starts.get(place, 0) < end}
    found: list[Message] = []
    with closing(Consumer(consumer_config(settings, "fanline-test-records", "records"))) as consumer:
        consumer.assign([TopicPartition(*place, starts.get(place, 0)) for place in open_places])
        while open_places:
            for record in consumer.consume(500, 0.1):
                place = (str(record.topic()), int(record.partition() or 0))
                if record.error() is not None or int(record.offset() or 0) >= ends[place]:
                    open_places.discard(place)
                else:
                    found.append(message_of(record))
    return found
