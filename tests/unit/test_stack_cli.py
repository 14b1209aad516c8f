"""The command line: lazy commands, plain sentences for expected failures, exit codes."""

import errno
import importlib
import subprocess
import sys

import click
import pytest

from fanline import cli
from fanline.errors import ConfigurationError
from stack.table import STEPS, Step


def test_help_lists_every_command_without_importing_any() -> None:
    code = (
        "import sys\nfrom fanline import cli\n"
        "sys.argv = ['fanline', '--help']\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print(sorted(m for m in sys.modules if m.startswith(('stack.', 'connectors.', 'schemas.', 'confluent'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")
    assert all(f"\n  {name} " in done.stdout for name, _, _ in cli.COMMANDS)


@pytest.mark.parametrize("target", [target for _, target, _ in cli.COMMANDS])
def test_a_command_is_where_the_table_says(target: str) -> None:
    module, _, attribute = target.partition(":")
    assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_up_is_where_the_table_says(step: Step) -> None:
    module, _, attribute = step.target.partition(":")
    assert callable(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize(
    ("raised", "code", "printed"),
    [
        (ConfigurationError("The port is taken."), 2, "The port is taken.\n"),
        (KeyboardInterrupt(), 130, ""),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "The disk is full"),
        (click.UsageError("No such option: --x"), 2, "No such option"),
    ],
)
def test_failures_end_with_one_sentence_and_their_code(
    raised: BaseException,
    code: int,
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise raised

    monkeypatch.setattr(cli, "fanline", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert printed in capsys.readouterr().err


def test_an_unknown_part_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["fanline", "up", "--only", "mysql"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "no part 'mysql'" in capsys.readouterr().err


def test_a_setting_that_does_not_hold_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANLINE_OPENSEARCH_PORT", "19250")
    done = subprocess.run([sys.executable, "-m", "fanline.cli", "status"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "FANLINE_OPENSEARCH_PORT" in done.stderr
    assert "Traceback" not in done.stderr
