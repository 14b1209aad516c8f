"""The command line `fanline`: subcommands are named here and imported when they are called."""

import errno
import importlib
import sys

import click

from fanline.errors import FanlineError

# Name, where the click command is, and its line in `fanline --help`.
COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("up", "stack.cli:up", "Start the local system and wait until all answers."),
    ("down", "stack.cli:down", "Stop the local system in an order that loses nothing."),
    ("status", "stack.cli:status", "Show servers, connectors, dataflows and the API."),
    ("migrate", "fanline.cli_database:migrate", "Bring the database schema up to date."),
    ("prune", "fanline.cli_database:prune", "Delete sent events, old idempotency keys and dead sessions."),
    ("topics", "connectors.cli_topics:topics", "Create or compare Kafka topics."),
    ("schemas", "schemas.cli:schemas", "Check or register the domain events' schemas."),
    ("connectors", "connectors.cli:connectors", "Compare, apply and steer Debezium's connectors."),
    ("lag", "connectors.cli_lag:lag", "Show how far flows and connectors are behind."),
    ("dlq", "connectors.cli_dlq:dlq", "Show, replay or drop records that flows could not take."),
    ("dataflows", "fanline.cli_dataflows:dataflows", "List, start, stop, restart and scale dataflows."),
    ("offsets", "fanline.cli_offsets:offsets", "Show and reset a dataflow's offsets and recovery store."),
    ("dataflow", "dataflows.cli:dataflow", "Run one dataflow."),
    ("api", "api.cli:api", "Serve the API."),
    ("keys", "api.cli:keys", "Rotate the keys that sign access tokens."),
    ("load", "fanline.cli_load:load", "Load a graph and posts into a running system."),
    ("demo", "fanline.cli_demo:demo", "Start everything, load it, and compare every timeline with SQL."),
    ("archive", "fanline.cli_archive:archive", "Query and compact the Parquet archive of events."),
    ("rebuild", "rebuild.cli:rebuild", "Build a read model again beside the one that serves, and switch."),
    ("search", "dataflows.search_cli:search", "Build search indexes anew and show them."),
    ("replicate", "fanline.cli_replicate:replicate", "Move to another database without writing to both."),
    ("audit", "fanline.cli_audit:audit", "Compare the read models with SQL."),
    ("why", "fanline.cli_why:why", "Say why a post is or is not in somebody's home timeline."),
)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that `fanline status` loads no Kafka client."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of `COMMANDS`."""
        return [name for name, _, _ in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now."""
        for name, target, _ in COMMANDS:
            if name == cmd_name:
                module, _, attribute = target.partition(":")
                command = getattr(importlib.import_module(module), attribute)
                assert isinstance(command, click.Command)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help's list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, _, help_line in COMMANDS])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fanline")
def fanline() -> None:
    """Run and look after Fanline; settings are environment variables FANLINE_* (docs/settings.md)."""


def main() -> None:
    """Entry point: expected failures are one plain sentence on standard error and their exit code."""
    try:
        fanline(standalone_mode=False)
    except FanlineError as error:
        click.echo(str(error), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        click.echo(f"The disk is full: {error}.", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)


if __name__ == "__main__":
    main()
