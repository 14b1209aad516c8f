"""The servers' settings as tables: the local stack passes them on, docker-compose.yml is held to them by a test."""

from pathlib import Path

from fanline.settings import Settings

Table = dict[str, str]

POSTGRES: Table = {
    "wal_level": "logical",
    "max_replication_slots": "10",
    "max_wal_senders": "10",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
}

POSTGRES_USER = "postgres"
POSTGRES_DATABASES = ("fanline", "registry")

# A crash must not leave an old snapshot behind that the flows would trust, so Valkey saves only when asked to stop.
VALKEY: Table = {"save": "", "appendonly": "no", "shutdown-on-sigterm": "save"}

# Topics are made by connectors.topics and Kafka Connect, never by a client's spelling mistake.
KAFKA: Table = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "auto.create.topics.enable": "false",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "background.threads": "2",
    "num.recovery.threads.per.data.dir": "1",
}

CONNECT: Table = {
    "group.id": "fanline-connect",
    "config.storage.topic": "_connect_configs",
    "offset.storage.topic": "_connect_offsets",
    "status.storage.topic": "_connect_status",
    "config.storage.replication.factor": "1",
    "offset.storage.replication.factor": "1",
    "status.storage.replication.factor": "1",
    "offset.storage.partitions": "1",
    "status.storage.partitions": "1",
    "key.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "plugin.discovery": "service_load",
    "offset.flush.interval.ms": "1000",
    "connector.client.config.override.policy": "All",
    "scheduled.rebalance.max.delay.ms": "0",
}

# Postgres storage: schema ids stand in every Avro record, so they must survive the registry.
REGISTRY: Table = {
    "apicurio.storage.kind": "sql",
    "apicurio.storage.sql.kind": "postgresql",
    # Its default of 20 to 100 connections is for a server of its own; each is a Postgres process here.
    "apicurio.datasource.jdbc.initial-size": "2",
    "apicurio.datasource.jdbc.min-size": "2",
    "apicurio.datasource.jdbc.max-size": "10",
}

OPENSEARCH: Table = {"cluster.name": "fanline", "discovery.type": "single-node"}

HEAP: Table = {"kafka": "384m", "connect": "448m", "registry": "256m", "opensearch": "512m"}

LOG4J: Table = {
    "rootLogger.level": "info",
    "rootLogger.appenderRef.out.ref": "out",
    "appender.out.type": "Console",
    "appender.out.name": "out",
    "appender.out.layout.type": "PatternLayout",
    "appender.out.layout.pattern": "[%d] %p %m (%c)%n",
}


def kafka(settings: Settings, data: Path) -> Table:
    """server.properties of one broker that is its own KRaft controller."""
    broker = f"PLAINTEXT://{settings.host}:{settings.kafka_port}"
    controller = f"{settings.host}:{settings.kafka_controller_port}"
    return KAFKA | {
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"{broker},CONTROLLER://{controller}",
        "advertised.listeners": broker,
        "log.dirs": str(data),
    }


def connect(settings: Settings, plugins: Path) -> Table:
    """connect-distributed.properties of one worker; `plugins` holds one folder a plugin."""
    return CONNECT | {
        "bootstrap.servers": f"{settings.host}:{settings.kafka_port}",
        "listeners": f"HTTP://{settings.host}:{settings.connect_port}",
        "rest.advertised.host.name": settings.host,
        "plugin.path": str(plugins),
    }


def registry(settings: Settings) -> Table:
    """Java system properties of the schema registry."""
    return REGISTRY | {
        "quarkus.http.host": settings.host,
        "quarkus.http.port": str(settings.registry_port),
        # Nothing uses the management interface, which would listen on port 9000 of every address: any free port here.
        "quarkus.management.host": settings.host,
        "quarkus.management.port": "0",
        "apicurio.datasource.url": f"jdbc:postgresql://{settings.host}:{settings.postgres_port}/registry",
        "apicurio.datasource.username": POSTGRES_USER,
        "apicurio.datasource.password": POSTGRES_USER,
    }


def opensearch(settings: Settings) -> Table:
    """opensearch.yml; the runner sets cluster name, discovery and HTTP port from its arguments."""
    return {"network.host": settings.host, "transport.port": str(settings.opensearch_transport_port)}


def properties(table: Table) -> str:
    """The table as a Java properties file."""
    return "".join(f"{key}={value}\n" for key, value in table.items())


def yaml(table: Table) -> str:
    """The table as a flat YAML file."""
    return "".join(f"{key}: {value}\n" for key, value in table.items())
