"""A stack of a benchmark's own, on empty data beside whatever runs: for benchmarks that fill topics."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from benchmarks.servers import free_port
from connectors.topics import ensure_topics
from fanline.errors import DependencyUnavailable
from fanline.migrations_runner import migrate
from fanline.settings import Settings, get_settings

PORTS = (
    "POSTGRES", "REDIS", "KAFKA", "KAFKA_CONTROLLER", "CONNECT", "REGISTRY", "API", "FLOWS_METRICS",
)  # fmt: skip
UP_SECONDS = 240


@contextmanager
def own_stack(only: str, more: Mapping[str, str] = MappingProxyType({})) -> Iterator[dict[str, str]]:
    """The named servers (`fanline up --only`) for as long as the block runs; the environment that leads to them.

    `more` are further settings, as environment variables.

    `get_settings()` means them too while the block runs. Raises `DependencyUnavailable` with what `fanline up` says.
    """
    settings = get_settings()
    folder = (settings.state_dir / "benchmark").resolve()
    chosen = {f"FANLINE_{name}_PORT": str(free_port()) for name in PORTS}
    chosen |= dict(more)
    chosen |= {
        "FANLINE_STATE_DIR": str(folder),
        "FANLINE_SERVERS_DIR": str((settings.servers_dir or settings.state_dir / "servers").resolve()),
    }
    environment = os.environ | chosen
    kept = {name: os.environ.get(name) for name in chosen}
    _fanline(environment, "down")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        up = _fanline(environment, "up", "--only", only)
        if up.returncode:
            raise DependencyUnavailable(
                f"The benchmark's servers do not start: {up.stderr.strip() or up.stdout[-500:]}"
            )
        os.environ.update(chosen)
        get_settings.cache_clear()
        yield environment
    finally:
        _fanline(environment, "down")
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        get_settings.cache_clear()


@contextmanager
def migrated_stack(
    only: str, more: Mapping[str, str] = MappingProxyType({})
) -> Iterator[tuple[dict[str, str], Settings]]:
    """The same with the database's tables and Kafka's topics; also its settings."""
    with own_stack(only, more) as environment:
        settings = get_settings()
        migrate(settings)
        ensure_topics(settings)
        yield environment, settings


def _fanline(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "fanline.cli", *arguments],
        env=environment, cwd=Path(__file__).resolve().parents[1], stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=UP_SECONDS, check=False,
    )  # fmt: skip
