"""`python -m api`: serve the API, all boundaries or some."""

import sys

import click

from api.cli import api
from fanline.errors import FanlineError


def main() -> int:
    """Serve until a signal; 0 after a clean end."""
    try:
        api(prog_name="python -m api", standalone_mode=False)
    except FanlineError as error:
        click.echo(error, err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
