"""How Fanline's Kafka clients are set up, and what their errors mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from fanline.addresses import kafka_bootstrap_servers
from fanline.errors import ConfigurationError, DependencyUnavailable
from fanline.settings import Settings

# Asking a broker that is up takes milliseconds; one that restarts on the same machine needs some seconds.
REQUEST_TIMEOUT_SECONDS = 5.0

# Errors that no waiting mends.
_CONFIGURATION_ERRORS = frozenset(
    [
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
        KafkaError._UNSUPPORTED_FEATURE,
    ]
)


def client_config(settings: Settings, client_id: str) -> dict[str, Any]:
    """What every client has in common."""
    return {
        "bootstrap.servers": kafka_bootstrap_servers(settings),
        "client.id": client_id,
        # A broker that comes back is found within a second.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "log_level": 3,
    }


def consumer_config(settings: Settings, group: str, client_id: str) -> dict[str, Any]:
    """A consumer that decides itself what it reads from where and what it commits."""
    return client_config(settings, client_id) | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # An offset that is gone must be seen: any other value jumps over what was lost.
        "auto.offset.reset": "error",
        # Tells where a partition ends, whatever lies between the last record and the end.
        "enable.partition.eof": True,
        # A sink may wait for its server for as long as it takes.
        "max.poll.interval.ms": 86_400_000,
        # Read ahead, a partition: four batches. More is no faster, and a busy topic would keep others' records
        # waiting behind it, as all share one queue.
        "queued.min.messages": 2_000,
        "queued.max.messages.kbytes": 8_192,
        # Librdkafka pauses a full partition for a second by default, and a fast flow then waits for it.
        "fetch.queue.backoff.ms": 10,
        "fetch.error.backoff.ms": 100,
    }


def quiet_config() -> dict[str, Any]:
    """What a client adds that somebody waits for who is told in a sentence when Kafka does not answer.

    The library would write each attempt to standard error besides. What is critical it still writes.
    """
    return {"log_level": 2}


def unhurried_config() -> dict[str, Any]:
    """What a consumer adds that had rather be given many records at a time than each at once."""
    return {"fetch.min.bytes": 65_536, "fetch.wait.max.ms": 250}


def producer_config(settings: Settings, client_id: str) -> dict[str, Any]:
    """A producer that neither loses, repeats nor reorders."""
    return client_config(settings, client_id) | {
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "lz4",
        "linger.ms": 2,
        # A key goes to the partition that Java's producers, Debezium among them, send it to.
        "partitioner": "murmur2_random",
        # Long enough for a broker's restart, after which the flow stops loudly and its supervisor starts it again.
        "delivery.timeout.ms": 60_000,
    }


@contextmanager
def typed_errors(settings: Settings) -> Iterator[None]:
    """Turn Kafka's exceptions into `DependencyUnavailable` or `ConfigurationError`."""
    try:
        yield
    except KafkaException as error:
        fault: KafkaError = error.args[0]
        raise typed_error(settings, fault) from error


def typed_error(settings: Settings, fault: KafkaError) -> DependencyUnavailable | ConfigurationError:
    """The typed error for a fault of a Kafka client."""
    servers = kafka_bootstrap_servers(settings)
    if fault.code() in _CONFIGURATION_ERRORS:
        return ConfigurationError(f"Kafka at {servers} refuses: {fault.str()}.")
    return DependencyUnavailable(f"Kafka at {servers} does not answer: {fault.str()}.", "kafka")


def is_configuration_error(fault: KafkaError) -> bool:
    """Whether waiting cannot mend the fault."""
    return fault.code() in _CONFIGURATION_ERRORS
