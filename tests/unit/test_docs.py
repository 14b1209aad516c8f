"""Commands, options, files and metrics that the documentation names exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from benchmarks.__main__ import names
from fanline import metrics
from fanline.cli import COMMANDS, fanline

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:\.venv/bin/|`)fanline ((?:[a-z]+)(?: [a-z]+)?)((?: --[a-z-]+(?: [A-Z0-9.]+)?)*)")
OPTION = re.compile(r"--[a-z-]+")
FILE = re.compile(
    r"`((?:api|audit|benchmarks|connectors|dataflows|demo|fanline|migrations|readmodels|schemas|sinks|stack)/[\w./-]*)`"
)
METRIC = re.compile(r"\bfanline_[a-z_]+(?:_total|_seconds|_size)\b")
TARGET = re.compile(r"\bmake ([a-z]+)\b")


def each_page() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def named_commands(page: Path) -> Iterator[tuple[list[str], list[str]]]:
    for words, options in COMMAND.findall(page.read_text(encoding="utf-8")):
        yield words.split(), OPTION.findall(options)


@each_page()
def test_commands_and_options_exist(page: Path) -> None:
    for words, options in named_commands(page):
        command: click.Command = fanline
        with click.Context(fanline) as context:
            for word in words:
                if not isinstance(command, click.Group):
                    break
                found = command.get_command(context, word)
                assert found is not None, f"fanline {' '.join(words)}"
                command = found
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert set(options) <= known, f"fanline {' '.join(words)}"


@each_page()
def test_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in FILE.findall(text):
        # A guide that has the reader write a file shows it below its name (tests/integration/test_guide.py).
        if "NAME" not in name and f"`{name}`:\n\n```" not in text:
            assert (ROOT / name).exists(), name


@each_page()
def test_metrics_exist(page: Path) -> None:
    names = {
        f"{metric._name}_total" if metric._type == "counter" else metric._name
        for metric in vars(metrics).values()
        if hasattr(metric, "_documentation")
    }
    assert set(METRIC.findall(page.read_text(encoding="utf-8"))) <= names


@each_page()
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = re.sub(r"make (them|it|a|an|the|more|cold|order)\b", "", page.read_text(encoding="utf-8"))
    code = re.findall(r"`[^`\n]+`|^ {4}.*$", text, re.MULTILINE)
    assert set(TARGET.findall("\n".join(code))) <= targets


@pytest.mark.parametrize("name", [name for name, _, _ in COMMANDS])
def test_every_command_explains_itself(name: str) -> None:
    result = CliRunner().invoke(fanline, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output


def test_every_benchmark_is_in_the_table() -> None:
    table = (ROOT / "docs" / "guide" / "benchmarks.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)\.py` \|", table, re.MULTILINE)) == set(names())


def test_every_page_of_operations_is_in_its_table_once() -> None:
    folder = ROOT / "docs" / "operations"
    listed = re.findall(r"^\| \[[^]]+\]\(([\w-]+\.md)\)", (folder / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in folder.glob("*.md") if page.name != "README.md")
