"""docs/guide/new-read-model.md, followed to the letter in a copy of the tree, on the running system."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from audit.stores import Stores
from readmodels import generations
from readmodels.effects import command
from tests.conftest import CHECKOUT, Stack

GUIDE = CHECKOUT / "docs" / "guide" / "new-read-model.md"
FLOW = "streaks"
# A new file under its name, a change to others, or commands.
BLOCK = re.compile(r"(?:^`(?P<file>[\w/]+\.py)`:\n\n)?^```(?P<kind>python|diff|sh)\n(?P<text>.*?)^```$", re.M | re.S)

Run = Callable[..., str]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What git does not ignore of the tree, with this checkout's environment and what mypy has found out about it."""
    list_files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(list_files, cwd=CHECKOUT, capture_output=True, check=True, text=True)
    for name in listed.stdout.rstrip("\0").split("\0"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, target)
    (tmp_path / ".venv").symlink_to(CHECKOUT / ".venv")
    if (CHECKOUT / ".mypy_cache").exists():
        shutil.copytree(CHECKOUT / ".mypy_cache", tmp_path / ".mypy_cache")
    return tmp_path


@pytest.fixture
def run(system: Stack, copy: Path) -> Iterator[Run]:
    """Runs a command in the copy, on the running system; what it has printed."""
    environment = system.environment | {"FANLINE_TEST_STACK": "running", "PYTHONPATH": str(copy)}

    def execute(*words: str, given: str = "") -> str:
        done = subprocess.run(
            words, cwd=copy, env=environment, input=given, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(words)}:\n{given}\n{done.stdout}"
        return done.stdout

    yield execute
    if FLOW in (copy / "connectors" / "flows.py").read_text(encoding="utf-8"):
        execute(".venv/bin/fanline", "down", "--only", FLOW)
        forget_keys(system)


def forget_keys(system: Stack) -> None:
    """Removes what the new read model keeps, of which other tests know nothing."""
    stores = Stores(system.settings)
    try:
        for keys in stores.scan(b"streak:*"):
            stores.redis([command(key, b"UNLINK") for key in keys])
        stores.redis([command(generations.hash_key(FLOW), b"DEL")])
    finally:
        stores.close()


def test_a_newcomer_who_follows_the_guide_has_a_read_model_that_keeps_the_contract(run: Run, copy: Path) -> None:
    said = ""
    blocks = list(BLOCK.finditer(GUIDE.read_text(encoding="utf-8")))
    assert len(blocks) == GUIDE.read_text(encoding="utf-8").count("\n```") / 2
    for block in blocks:
        text = block["text"]
        if block["kind"] == "python":
            assert block["file"], f"no file stands over:\n{text}"
            (copy / block["file"]).write_text(text, encoding="utf-8")
        elif block["kind"] == "diff":
            run("git", "apply", "--recount", "-", given=text)
        else:
            said += run("bash", "-euo", "pipefail", given=text)
    assert re.search(r"^streaks +([1-9]\d*) +\1\b", said, re.MULTILINE), said
    assert re.search(r"^streaks: ([1-9]\d*) compared with the database, \1 equal;", said, re.MULTILINE), said
