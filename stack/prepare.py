"""What has to be there before a server starts (`before`) and what is settled when it answers (`after`)."""

import base64
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
from psycopg import sql

from fanline.errors import FanlineError
from stack import configuration
from stack.layout import Layout
from stack.unprivileged import Unprivileged, unprivileged

CLUSTER_ID = base64.urlsafe_b64encode(b"fanline-on-local").decode()[:22]


class PreparationFailed(FanlineError):
    """A server's data folder cannot be made; the message ends with what its tool said."""


def postgres_runner(layout: Layout) -> Unprivileged:
    """How the stack runs Postgres on this machine."""
    return unprivileged(layout.postgres, layout.data("postgres"))


def folder(layout: Layout, name: str, cancelled: threading.Event) -> None:
    """The data folder alone."""
    layout.data(name).mkdir(parents=True, exist_ok=True)


def postgres(layout: Layout, name: str, cancelled: threading.Event) -> None:
    """An initialised cluster, made beside its place and moved there: an interrupted one is not taken for whole."""
    runner = postgres_runner(layout)
    if runner.programs != layout.postgres:
        _copy_programs(layout.postgres, runner.programs)
    data = layout.data(name)
    if (data / "PG_VERSION").exists():
        return
    unfinished = runner.data.with_name(runner.data.name + ".unfinished")
    for leftover in (unfinished, runner.data):
        shutil.rmtree(leftover, ignore_errors=True)
    data.parent.mkdir(parents=True, exist_ok=True)
    unfinished.mkdir(parents=True, mode=0o700)
    runner.own(unfinished)
    command = [
        *runner.prefix,
        str(runner.programs / "bin" / "initdb"),
        *("-D", str(unfinished), "-U", configuration.POSTGRES_USER),
        *("-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8"),
    ]
    run_tool(command, cancelled, user=runner.user)
    unfinished.rename(runner.data)
    if runner.data != data:
        data.unlink(missing_ok=True)
        data.symlink_to(runner.data)


def _copy_programs(source: Path, target: Path) -> None:
    """Copy the wheel's programs with the libraries that it keeps beside its package, at the same distance."""
    libraries = f"{source.parent.name}.libs"
    for origin, copy in (
        (source.parents[1] / libraries, target.parents[1] / libraries),
        (source, target),
    ):
        if origin.exists() and not copy.exists():
            shutil.copytree(origin, copy.with_name(f"{copy.name}.unfinished"), dirs_exist_ok=True)
            copy.with_name(f"{copy.name}.unfinished").rename(copy)


def databases(layout: Layout) -> None:
    """The databases that the stack needs; those that are there stay as they are."""
    settings = layout.settings
    with psycopg.connect(
        host=settings.host,
        port=settings.postgres_port,
        user=configuration.POSTGRES_USER,
        dbname="postgres",
        autocommit=True,
    ) as connection:
        there = {row[0] for row in connection.execute("select datname from pg_database")}
        for name in configuration.POSTGRES_DATABASES:
            if name not in there:
                connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))


def forget_snapshot(layout: Layout) -> None:
    """Delete the snapshot that was just loaded: after a crash Valkey is empty, which the flows notice, never stale."""
    (layout.data("valkey") / "dump.rdb").unlink(missing_ok=True)


def kafka(layout: Layout, name: str, cancelled: threading.Event) -> None:
    """Kafka's configuration and, once, its formatted log folder."""
    _log4j(layout)
    data = layout.data("kafka")
    properties = layout.run / "kafka.properties"
    properties.write_text(configuration.properties(configuration.kafka(layout.settings, data)))
    if (data / "meta.properties").exists():
        return
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    tool = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)]
    java = [str(layout.java), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
    run_tool([*java, "-cp", str(layout.servers / "lib/kafka/*"), *tool], cancelled)


def connect(layout: Layout, name: str, cancelled: threading.Event) -> None:
    """Kafka Connect's configuration."""
    _log4j(layout)
    plugins = layout.servers / "plugins"
    content = configuration.properties(configuration.connect(layout.settings, plugins))
    (layout.run / "connect.properties").write_text(content)


def opensearch(layout: Layout, name: str, cancelled: threading.Event) -> None:
    """OpenSearch's configuration folder and data folder."""
    folder(layout, name, cancelled)
    config = layout.run / "opensearch"
    config.mkdir(exist_ok=True)
    (config / "opensearch.yml").write_text(configuration.yaml(configuration.opensearch(layout.settings)))
    (config / "log4j2.properties").write_text(configuration.properties(configuration.LOG4J))


def _log4j(layout: Layout) -> None:
    (layout.run / "log4j2.properties").write_text(configuration.properties(configuration.LOG4J))


def run_tool(
    command: list[str], cancelled: threading.Event, *, user: str | None = None, cwd: Path | None = None
) -> None:
    """Run a short-lived tool to its end, or until `cancelled`; raises `PreparationFailed` with its last line."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        user=user,
        extra_groups=None if user is None else [],
        cwd=cwd or "/",
    ) as process:
        while True:
            try:
                output, _ = process.communicate(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                if cancelled.is_set():
                    process.kill()
    if process.returncode != 0 and not cancelled.is_set():
        said = output.strip().splitlines()[-1:] or ["nothing"]
        raise PreparationFailed(f"{Path(command[0]).name} failed with code {process.returncode} and said: {said[0]}")


BEFORE: dict[str, Callable[[Layout, str, threading.Event], None]] = {
    "": lambda layout, name, cancelled: None,
    "folder": folder,
    "postgres": postgres,
    "kafka": kafka,
    "connect": connect,
    "opensearch": opensearch,
}
AFTER: dict[str, Callable[[Layout], None]] = {
    "": lambda layout: None,
    "databases": databases,
    "forget_snapshot": forget_snapshot,
}
