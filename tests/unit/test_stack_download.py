"""Downloads: another artifact is refused, missing Maven and a full disk are one sentence each."""

import hashlib
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from fanline.errors import DependencyUnavailable
from fanline.settings import Settings
from stack import download
from stack.download import DownloadFailed, ensure_downloaded, verify
from stack.layout import Layout
from stack.versions import CHECKOUT, maven_versions


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one jar, and checksums that fit it."""
    jar = tmp_path / "lib" / "kafka" / "a.jar"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(b"right")
    sums = tmp_path / "checksums.sha256"
    sums.write_text(f"{hashlib.sha256(b'right').hexdigest()}  lib/kafka/a.jar\n")
    monkeypatch.setattr(download, "CHECKSUMS", sums)
    return tmp_path


def test_the_right_files_pass(servers: Path) -> None:
    verify(servers)


def test_a_different_file_is_refused_by_name(servers: Path) -> None:
    (servers / "lib/kafka/a.jar").write_bytes(b"wrong")
    with pytest.raises(DownloadFailed, match=r"^lib/kafka/a\.jar has SHA-256 .* refused\.$"):
        verify(servers)


def test_an_additional_file_is_refused(servers: Path) -> None:
    (servers / "lib/kafka/b.jar").write_bytes(b"more")
    with pytest.raises(DownloadFailed, match=r"b\.jar was downloaded and is not in"):
        verify(servers)


def test_a_missing_file_is_noticed(servers: Path) -> None:
    (servers / "lib/kafka/a.jar").unlink()
    with pytest.raises(DownloadFailed, match="was not downloaded"):
        verify(servers)


def test_missing_maven_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    layout = Layout(Settings(state_dir=tmp_path))
    with pytest.raises(DependencyUnavailable, match=r"^Maven is not installed") as caught:
        ensure_downloaded(layout, lambda line: None, threading.Event())
    assert "\n" not in str(caught.value)


def test_of_mavens_errors_the_first_is_told_with_what_belongs_to_it() -> None:
    assert download.first_fault(["Could not transfer x", "To see the full stack trace"]) == "Could not transfer x"
    assert download.first_fault(["Some problems:", "Child module x is missing", "y"]) == (
        "Some problems: Child module x is missing"
    )
    assert download.first_fault([]) == ""


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(DownloadFailed, match=r"has 0\.0 GB free"):
        ensure_downloaded(Layout(Settings(state_dir=tmp_path)), lambda line: None, threading.Event())


def test_the_committed_checksums_name_the_pinned_versions() -> None:
    listed = (CHECKOUT / "stack" / "maven" / "checksums.sha256").read_text()
    versions = maven_versions()
    assert f"kafka_2.13-{versions['kafka']}.jar" in listed
    assert f"debezium-connector-postgres-{versions['debezium']}-plugin.tar.gz" in listed
    assert f"debezium-connector-cockroachdb-{versions['debezium.cockroachdb']}-plugin.tar.gz" in listed
    assert f"apicurio-registry-app-{versions['apicurio']}-all.tar.gz" in listed


def test_connect_finds_the_avro_converter_by_its_service_manifest(servers: Path) -> None:
    (servers / "lib" / "converter").mkdir()
    (servers / "lib" / "converter" / "c.jar").touch()
    download.unpack(servers)
    folder = servers / "plugins" / "apicurio-converter"
    assert (folder / "c.jar").exists()
    with zipfile.ZipFile(folder / "service-manifest.jar") as manifest:
        text = manifest.read("META-INF/services/org.apache.kafka.connect.storage.Converter").decode()
    assert "io.apicurio.registry.utils.converter.AvroConverter\n" in text


def test_another_version_is_removed_unless_somebody_runs_from_it(tmp_path: Path) -> None:
    present, used, unused = (tmp_path / (digit * 12) for digit in "abc")
    for folder in (present, used, unused):
        folder.mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()", str(used / "lib")], stdin=subprocess.PIPE) as process:
        download.remove_other_versions(present)
        process.communicate(b"\n")
    assert sorted(tmp_path.iterdir()) == [present, used]


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell script")
def test_a_wrong_python_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "stack").mkdir()
    for name in ("requirements.lock", "pyproject.toml", "stack/bootstrap.sh"):
        shutil.copy(CHECKOUT / name, tmp_path / name)
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "cat", "cksum", "dirname", "df", "awk"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    old = tools / "python3"
    old.write_text("#!/bin/sh\n[ \"$1\" = --version ] && echo 'Python 3.10.4' && exit 0\nexit 1\n")
    old.chmod(0o755)
    environment = {"PATH": str(tools), "HOME": str(tmp_path)}
    command = ["sh", "stack/bootstrap.sh"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Fanline needs CPython 3.11 or 3.12")
    assert "Python 3.10.4" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".venv").exists()
