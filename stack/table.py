"""The process table: every server, step, dataflow and the API, what each needs and the order in which they stop.

Data made from the settings and from the numbers of instances: nothing here starts or asks anything.
"""

import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from connectors.flows import UNHURRIED, flows_of, metrics_port
from fanline.addresses import audit_metrics_port
from fanline.settings import Settings
from stack import configuration
from stack.instances import instances
from stack.layout import Layout


@dataclass(frozen=True)
class Probe:
    """How to ask a process whether it serves: `path` is used over HTTP only."""

    protocol: Literal["http", "redis", "postgres", "kafka"]
    host: str
    port: int
    path: str = "/"


@dataclass(frozen=True)
class Process:
    """One process of the stack; `needs` are names of processes and steps that must be ready before it starts."""

    name: str
    kind: Literal["server", "dataflow", "api"]
    command: tuple[str, ...]
    probe: Probe
    url: str
    ports: dict[str, int]  # by the setting that changes each
    stop_stage: int  # all of a lower stage have stopped before one of a higher stage is asked to
    needs: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    prepare: str = ""  # a function of stack.prepare, run before the start
    settle: str = ""  # a function of stack.prepare, run when it answers
    stop_signal: signal.Signals = signal.SIGTERM
    start_seconds: float = 180  # generous: a laptop may be busy, and a crash is noticed at once
    stop_seconds: float = 30
    supervised: bool = False  # restarted when it ends by itself
    flow: str = ""  # of a dataflow: which one it runs, and which instance of it
    instance: int = 0
    unprivileged: bool = False  # refuses to run as root
    gives_way: bool = False  # to the others, where the cores are busy: nobody waits for it


@dataclass(frozen=True)
class Step:
    """A function of another room that has to succeed between servers and processes; called with the settings."""

    name: str
    target: str  # module:function
    needs: tuple[str, ...]


Node = Process | Step

STEPS = (
    Step("migrate", "fanline.migrations_runner:migrate", ("postgres",)),
    Step("topics", "connectors.topics:ensure_topics", ("kafka",)),
    Step("schemas", "schemas.registry:register_all", ("registry",)),
    Step("connectors", "connectors.connect:apply_all", ("connect", "migrate", "topics", "schemas")),
)


def nodes(layout: Layout) -> tuple[Node, ...]:
    """Everything that `fanline up` brings up, in the order in which it is shown."""
    return (*_servers(layout), *STEPS, *_dataflows(layout), *_audit(layout.settings), _api(layout.settings))


def processes(layout: Layout) -> tuple[Process, ...]:
    """The processes of `nodes`."""
    return tuple(node for node in nodes(layout) if isinstance(node, Process))


def closure(all_nodes: Sequence[Node], names: Sequence[str]) -> tuple[Node, ...]:
    """The named nodes and everything that they need, in table order; raises KeyError with an unknown name."""
    by_name = {node.name: node for node in all_nodes}
    wanted: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in wanted:
            wanted.add(name)
            pending.extend(by_name[name].needs)
    return tuple(node for node in all_nodes if node.name in wanted)


def _servers(layout: Layout) -> tuple[Process, ...]:
    settings, host, run = layout.settings, layout.settings.host, layout.run
    return (
        Process(
            name="postgres",
            kind="server",
            command=(
                str(layout.postgres / "bin" / "postgres"),
                *("-D", str(layout.data("postgres"))),
                *("-c", f"listen_addresses={host}", "-c", f"port={settings.postgres_port}"),
                *("-c", "unix_socket_directories="),
                *(part for key, value in configuration.POSTGRES.items() for part in ("-c", f"{key}={value}")),
            ),
            probe=Probe("postgres", host, settings.postgres_port),
            url=f"postgresql://{configuration.POSTGRES_USER}@{host}:{settings.postgres_port}/fanline",
            ports={"FANLINE_POSTGRES_PORT": settings.postgres_port},
            stop_stage=4,
            prepare="postgres",
            settle="databases",
            stop_signal=signal.SIGINT,  # "fast": open sessions are ended, everything committed is kept
            unprivileged=True,
        ),
        Process(
            name="valkey",
            kind="server",
            command=(
                str(layout.valkey),
                *("--port", str(settings.redis_port), "--bind", host),
                *("--dir", str(layout.data("valkey"))),
                *(part for key, value in configuration.VALKEY.items() for part in (f"--{key}", value)),
            ),
            probe=Probe("redis", host, settings.redis_port),
            url=f"redis://{host}:{settings.redis_port}",
            ports={"FANLINE_REDIS_PORT": settings.redis_port},
            stop_stage=3,
            prepare="folder",
            settle="forget_snapshot",
        ),
        Process(
            name="kafka",
            kind="server",
            command=_java(layout, "kafka", "lib/kafka/*", _log4j(layout), "kafka.Kafka", str(run / "kafka.properties")),
            probe=Probe("kafka", host, settings.kafka_port),
            url=f"{host}:{settings.kafka_port}",
            ports={
                "FANLINE_KAFKA_PORT": settings.kafka_port,
                "FANLINE_KAFKA_CONTROLLER_PORT": settings.kafka_controller_port,
            },
            stop_stage=3,
            prepare="kafka",
        ),
        Process(
            name="connect",
            kind="server",
            # Started beside Kafka, for which it waits by itself: that is faster than one after the other.
            command=_java(
                layout,
                "connect",
                "lib/kafka/*",
                _log4j(layout),
                "org.apache.kafka.connect.cli.ConnectDistributed",
                str(run / "connect.properties"),
                tiered=True,
            ),
            probe=Probe("http", host, settings.connect_port, "/connectors"),
            url=f"http://{host}:{settings.connect_port}",
            ports={"FANLINE_CONNECT_PORT": settings.connect_port},
            stop_stage=2,
            prepare="connect",
        ),
        Process(
            name="registry",
            kind="server",
            command=_java(
                layout,
                "registry",
                "",
                *(f"-D{key}={value}" for key, value in configuration.registry(settings).items()),
                "-jar",
                str(layout.servers / "registry" / "quarkus-run.jar"),
            ),
            probe=Probe("http", host, settings.registry_port, "/apis/ccompat/v7/subjects"),
            url=f"http://{host}:{settings.registry_port}/apis/ccompat/v7",
            ports={"FANLINE_REGISTRY_PORT": settings.registry_port},
            stop_stage=3,
            needs=("postgres",),
            prepare="folder",
        ),
        Process(
            name="opensearch",
            kind="server",
            command=_java(
                layout,
                "opensearch",
                "lib/opensearch/*",
                # Languages that Java has not come from ICU.
                "-Djava.locale.providers=CLDR,SPI",
                "org.codelibs.opensearch.runner.OpenSearchRunner",
                *("-basePath", str(layout.data("opensearch")), "-confPath", str(run / "opensearch")),
                *("-numOfNode", "1", "-baseHttpPort", str(settings.opensearch_port - 1)),
                *("-clusterName", configuration.OPENSEARCH["cluster.name"], "-useLogger"),
            ),
            probe=Probe("http", host, settings.opensearch_port, "/_cluster/health"),
            url=f"http://{host}:{settings.opensearch_port}",
            ports={
                "FANLINE_OPENSEARCH_PORT": settings.opensearch_port,
                "FANLINE_OPENSEARCH_TRANSPORT_PORT": settings.opensearch_transport_port,
            },
            stop_stage=3,
            prepare="opensearch",
        ),
    )


def _dataflows(layout: Layout) -> tuple[Process, ...]:
    chosen = instances(layout)
    return tuple(
        _dataflow(layout.settings, flow, instance, chosen.get(flow, 1))
        for flow in flows_of(layout.settings.database_dialect)
        for instance in range(chosen.get(flow, 1))
    )


def _dataflow(settings: Settings, flow: str, instance: int, instances: int) -> Process:
    port = metrics_port(settings.flows_metrics_port, flow, instance)
    return Process(
        name=f"{flow}-{instance}" if instance else flow,
        kind="dataflow",
        command=(sys.executable, "-m", "dataflows.run", flow),
        probe=Probe("http", settings.host, port, "/metrics"),
        url=f"http://{settings.host}:{port}/metrics",
        ports={"FANLINE_FLOWS_METRICS_PORT": port},
        stop_stage=1,
        needs=("valkey", "migrate", "topics", "schemas"),  # Connect may still be starting: nothing is lost
        environment={
            "FANLINE_METRICS_PORT": str(port),
            "FANLINE_FLOW_INSTANCE": str(instance),
            "FANLINE_FLOW_INSTANCES": str(instances),
        },
        supervised=True,
        flow=flow,
        instance=instance,
        gives_way=flow in UNHURRIED,
    )


def _audit(settings: Settings) -> tuple[Process, ...]:
    """The audit that always runs: no flow, but shown beside them."""
    if not settings.audit_always:
        return ()
    port = audit_metrics_port(settings)
    return (
        Process(
            name="audit",
            kind="dataflow",
            command=(sys.executable, "-m", "fanline.cli", "audit", "--always"),
            probe=Probe("http", settings.host, port, "/metrics"),
            url=f"http://{settings.host}:{port}/metrics",
            ports={"FANLINE_FLOWS_METRICS_PORT": port},
            stop_stage=0,
            needs=("valkey", "migrate", "topics", "schemas"),
            environment={"FANLINE_METRICS_PORT": str(port)},
            supervised=True,
            gives_way=True,
        ),
    )


def _api(settings: Settings) -> Process:
    return Process(
        name="api",
        kind="api",
        command=(sys.executable, "-m", "api"),
        probe=Probe("http", settings.host, settings.api_port, "/health/ready"),
        url=settings.public_url or f"http://{settings.host}:{settings.api_port}",
        ports={"FANLINE_API_PORT": settings.api_port},
        stop_stage=0,
        needs=("valkey", "migrate", "topics", "schemas"),
        environment=_local_api(settings),
        supervised=True,
    )


def _local_api(settings: Settings) -> dict[str, str]:
    """What is open to everybody who can reach an API that listens on this machine alone."""
    alone = settings.host in ("127.0.0.1", "localhost", "::1") and not settings.public_url
    return {"FANLINE_PIPELINE_PUBLIC": "true"} if alone and settings.pipeline_public is None else {}


def _java(layout: Layout, name: str, class_path: str, *arguments: str, tiered: bool = False) -> tuple[str, ...]:
    """A Java command; C1 alone starts faster and takes less memory, `tiered` adds C2 where throughput counts."""
    archive = layout.archive(name)
    return (
        str(layout.java),
        "-XX:+UseSerialGC",
        *(() if tiered else ("-XX:TieredStopAtLevel=1",)),
        f"-Xmx{configuration.HEAP[name]}",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        f"-Djava.io.tmpdir={layout.temporary}",
        "-Xlog:aot*=off,cds*=off:stderr",
        f"-XX:AOTCache={archive}",
        *(("-cp", str(layout.servers / class_path)) if class_path else ()),
        *arguments,
    )


def _log4j(layout: Layout) -> str:
    return f"-Dlog4j2.configurationFile={layout.run / 'log4j2.properties'}"
