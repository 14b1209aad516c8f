"""What `fanline rebuild` refuses before it looks at any server."""

import pytest
from click.testing import CliRunner

from fanline.errors import ConfigurationError
from rebuild.cli import rebuild


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["cards", "--rollback", "--free"], "--rollback and --free"),
        (["cards", "--free", "--status"], "--free and --status"),
        (["cards", "--rollback", "--sample", "3"], "--sample and --rollback"),
        (["cards", "--rollback", "--keep-hours", "2"], "--keep-hours and --rollback"),
        (["cards", "--free", "--no-switch"], "--no-switch and --free"),
        (["cards", "--status", "--prefix", "ada"], "--prefix and --status"),
    ],
)
def test_options_that_exclude_each_other_are_refused(arguments: list[str], named: str) -> None:
    result = CliRunner().invoke(rebuild, arguments)
    assert isinstance(result.exception, ConfigurationError)
    assert str(result.exception) == f"{named} exclude each other."
