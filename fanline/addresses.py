"""Addresses of the servers: the setting where it is given, otherwise the local stack's."""

from fanline.settings import Settings


def kafka_bootstrap_servers(settings: Settings) -> str:
    """`host:port` list for Kafka clients."""
    return settings.kafka_bootstrap_servers or f"{settings.host}:{settings.kafka_port}"


def connect_url(settings: Settings) -> str:
    """Base URL of Kafka Connect's REST API, without a slash at its end."""
    return (settings.connect_url or f"http://{settings.host}:{settings.connect_port}").rstrip("/")


def registry_url(settings: Settings) -> str:
    """Base URL of the schema registry's Confluent-compatible API, without a slash at its end."""
    local = f"http://{settings.host}:{settings.registry_port}/apis/ccompat/v7"
    return (settings.registry_url or local).rstrip("/")


def connect_registry_url(settings: Settings) -> str:
    """URL of the registry's own API (v2) as Kafka Connect's converters reach it."""
    local = f"http://{settings.host}:{settings.registry_port}/apis/registry/v2"
    return (settings.connect_registry_url or local).rstrip("/")


def public_url(settings: Settings) -> str:
    """The URL under which clients reach the API, without a slash at its end; links in entities start with it."""
    return (settings.public_url or f"http://{settings.host}:{settings.api_port}").rstrip("/")


def opensearch_url(settings: Settings) -> str:
    """Base URL of OpenSearch, without a slash at its end; may contain a password."""
    return (settings.opensearch_url or f"http://{settings.host}:{settings.opensearch_port}").rstrip("/")


def audit_metrics_port(settings: Settings) -> int:
    """The port of /metrics of the audit that always runs: the one before the flows'."""
    return settings.metrics_port or settings.flows_metrics_port - 1
