"""Gets the servers that come as Maven artifacts: once, with progress, each file checked against a committed SHA-256."""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import psutil

from fanline.errors import DependencyUnavailable, FanlineError
from stack.layout import Layout
from stack.versions import MAVEN, maven_versions

CHECKSUMS = MAVEN / "checksums.sha256"
FREE_BYTES = 1_500_000_000  # the artifacts, their unpacked archives, JVM archives and first data

# Connect finds plugins by service manifests; only the Apicurio converter ships without one.
CONVERTER_SERVICE = "META-INF/services/org.apache.kafka.connect.storage.Converter"
CONVERTERS = ("SerdeBasedConverter", "AvroConverter", "ExtJsonConverter")

Report = Callable[[str], None]


class DownloadFailed(FanlineError):
    """The servers cannot be downloaded, or a file is not the one that was committed."""


def is_downloaded(layout: Layout) -> bool:
    """Whether the servers of the present poms and checksums are there, complete and checked."""
    return layout.servers.exists()


def ensure_downloaded(layout: Layout, report: Report, cancelled: threading.Event) -> None:
    """Download what is missing. `report` gets a line of progress now and then; raises `DownloadFailed`."""
    if is_downloaded(layout):
        return
    base = layout.servers.parent
    base.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(base).free
    if free < FREE_BYTES:
        raise DownloadFailed(
            f"The servers need {FREE_BYTES / 1e9:.1f} GB and {base} has {free / 1e9:.1f} GB free:"
            " make room or set FANLINE_SERVERS_DIR to another disk."
        )
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=base))
    try:
        run_maven(unfinished, report, cancelled)
        report("checking checksums")
        verify(unfinished)
        report("unpacking")
        unpack(unfinished)
        if not layout.servers.exists():  # another stack that shares the folder may have been faster
            unfinished.chmod(0o755)
            unfinished.rename(layout.servers)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    remove_other_versions(layout.servers)


def remove_other_versions(servers: Path) -> None:
    """Delete the folders of other versions beside `servers`, but those that a running process was started from."""
    others = [folder for folder in servers.parent.glob("[0-9a-f]" * 12) if folder != servers]
    if others:
        commands = {word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or ()}
        for folder in others:
            if not any(str(folder) in word for word in commands):
                shutil.rmtree(folder)


def run_maven(output: Path, report: Report, cancelled: threading.Event) -> None:
    """Copy the artifacts to `output`; needs no network when Maven's local repository holds them already."""
    maven = shutil.which("mvn")
    if maven is None:
        raise DependencyUnavailable(
            "Maven is not installed, and Kafka, Debezium, the registry and OpenSearch come from it:"
            " install it, for example with `apt-get install maven` or `brew install maven`."
        )
    command = [maven, "-B", "-T", "2", "-f", str(MAVEN / "pom.xml"), f"-Doutput={output}", "package"]
    report("asking Maven")
    # Warm repositories hold every artifact: without the network the answer comes in seconds, also on a train.
    offline = _maven([*command, "-o"], report, cancelled)
    if offline is not None:
        fault = _maven(command, report, cancelled)
        if fault is not None:
            raise DownloadFailed(f"Maven could not download the servers: {fault}")


def _maven(command: list[str], report: Report, cancelled: threading.Event) -> str | None:
    """Run Maven; None when it succeeded, else its first error."""
    artifacts = 0
    faults: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        watcher = threading.Thread(target=_kill_when, args=(cancelled, process), daemon=True)
        watcher.start()
        assert process.stdout is not None
        for line in process.stdout:
            if "Downloaded from" in line:
                artifacts += 1
                report(f"{artifacts} files, {line.split('/')[-1].strip()}")
            elif "[ERROR]" in line and (fault := line.rpartition("[ERROR]")[2].strip()):
                faults.append(fault.partition(" -> [Help")[0])
    if cancelled.is_set():
        raise KeyboardInterrupt
    return None if process.returncode == 0 else first_fault(faults) or f"it ended with code {process.returncode}"


def first_fault(faults: list[str]) -> str:
    """The first of Maven's errors; with what follows it when it is only a heading."""
    return " ".join(faults[: 2 if faults and faults[0].endswith(":") else 1])


def _kill_when(cancelled: threading.Event, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        if cancelled.wait(0.1):
            process.terminate()
            return


def files_run(servers: Path) -> list[Path]:
    """Every downloaded file that is run or unpacked, relative to `servers`, sorted."""
    found = [*servers.glob("lib/*/*.jar"), *servers.glob("dist/*.tar.gz")]
    return sorted(path.relative_to(servers) for path in found)


def checksums(servers: Path) -> dict[str, str]:
    """SHA-256 by relative path of the files in `files_run`."""
    result = {}
    for path in files_run(servers):
        with (servers / path).open("rb") as file:
            result[path.as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return result


def verify(servers: Path) -> None:
    """Refuse files that are not those of stack/maven/checksums.sha256; raises `DownloadFailed` naming the first."""
    expected = {}
    for line in CHECKSUMS.read_text().splitlines():
        digest, name = line.split(maxsplit=1)
        expected[name] = digest
    actual = checksums(servers)
    for name in sorted(expected.keys() | actual.keys()):
        if name not in actual:
            raise DownloadFailed(f"{name} is in {CHECKSUMS.name} and was not downloaded.")
        if name not in expected:
            raise DownloadFailed(f"{name} was downloaded and is not in {CHECKSUMS.name}: it is refused.")
        if actual[name] != expected[name]:
            raise DownloadFailed(
                f"{name} has SHA-256 {actual[name]}, not the {expected[name]} of {CHECKSUMS.name}: it is refused."
            )


def unpack(servers: Path) -> None:
    """Unpack the archives and lay out Connect's plugin folder, one folder a plugin."""
    plugins = servers / "plugins"
    for archive in sorted((servers / "dist").glob("*.tar.gz")):
        target = servers / "registry" if archive.name.startswith("apicurio") else plugins
        with tarfile.open(archive) as tar:
            # Set, not passed: Python before 3.11.4 knows no filter, and the archives are those of the checksums.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(target)
    converter = plugins / "apicurio-converter"
    converter.mkdir(parents=True)
    for jar in (servers / "lib" / "converter").glob("*.jar"):
        (converter / jar.name).symlink_to(Path("../../lib/converter") / jar.name)
    with zipfile.ZipFile(converter / "service-manifest.jar", "w") as manifest:
        package = "io.apicurio.registry.utils.converter"
        manifest.writestr(CONVERTER_SERVICE, "".join(f"{package}.{name}\n" for name in CONVERTERS))


def main() -> None:
    """`python -m stack.download FOLDER`: download to FOLDER and print the lines of checksums.sha256."""
    folder = Path(sys.argv[1]).resolve()
    run_maven(folder, lambda line: print(line, file=sys.stderr), threading.Event())  # noqa: T201
    print(f"{maven_versions()}", file=sys.stderr)  # noqa: T201
    for name, digest in checksums(folder).items():
        print(f"{digest}  {name}")  # noqa: T201


if __name__ == "__main__":
    main()
