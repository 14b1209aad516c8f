"""A private S3 server (S3Proxy over a folder) for tests that stop and start it; fetched once, by Maven."""

import contextlib
import hashlib
import subprocess
from pathlib import Path

import requests

from fanline.settings import get_settings
from stack.layout import Layout
from tests.conftest import CHECKOUT
from tests.integration.contract.valkey import free_port, wait_until

VERSION = "2.7.0"
SHA256 = "f3ff95bd78a7afbbcd5da56f8f6180ef71ad00601392f7e2f5a220c97ad69eef"
ARTIFACT = f"org.gaul:s3proxy:{VERSION}:jar:jar-with-dependencies"
FOLDER = CHECKOUT / ".fanline" / "test-servers"
BUCKET = "archive"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "fanline", "AWS_SECRET_ACCESS_KEY": "not-so-secret"}
# The AWS SDK's own checksums come as trailers, which S3Proxy does not know.
ENVIRONMENT = CREDENTIALS | {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}


def program() -> Path:
    """The server's jar, downloaded if it is not there; fails if it is another one than was pinned."""
    jar = FOLDER / f"s3proxy-{VERSION}-jar-with-dependencies.jar"
    if not jar.exists():
        copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
        command = ["mvn", "-B", "-q", copy, f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={FOLDER}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    with jar.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == SHA256, f"{jar} is not the jar that was pinned"
    return jar


class S3Server:
    """One server with an empty bucket; what it holds outlives its process."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        (folder / "data" / BUCKET).mkdir(parents=True)
        self._log = folder / "log"
        self._properties = folder / "s3proxy.properties"
        self._properties.write_text(
            f"s3proxy.endpoint=http://127.0.0.1:{self._port}\n"
            "s3proxy.authorization=aws-v2-or-v4\n"
            f"s3proxy.identity={CREDENTIALS['AWS_ACCESS_KEY_ID']}\n"
            f"s3proxy.credential={CREDENTIALS['AWS_SECRET_ACCESS_KEY']}\n"
            "s3proxy.ignore-unknown-headers=true\n"
            "jclouds.provider=filesystem-nio2\n"
            "jclouds.identity=unused\n"
            "jclouds.credential=unused\n"
            f"jclouds.filesystem.basedir={folder / 'data'}\n"
        )
        self.start()

    def url(self, prefix: str) -> str:
        """FANLINE_ARCHIVE_URL of a prefix in its bucket."""
        return f"s3://{BUCKET}/{prefix}?region=us-east-1&scheme=http&endpoint_override=127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it; returns when it answers."""
        java = [str(Layout(get_settings()).java), "-Xmx128m", "-XX:TieredStopAtLevel=1"]
        command = [*java, "-jar", str(program()), "--properties", str(self._properties)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._answers, "the S3 server answers")

    def stop(self) -> None:
        """Stop it at once."""
        self._process.kill()
        self._process.wait(10)

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"http://127.0.0.1:{self._port}/", timeout=1).status_code > 0
        return False
