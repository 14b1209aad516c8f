"""What has no generations and is built again otherwise, or not at all."""

import time
from collections.abc import Callable

import click

from audit.stores import Stores
from dataflows.search_cli import reindex
from fanline.errors import ConfigurationError, DependencyUnavailable
from readmodels import trend_marks
from readmodels.effects import command

SEARCH, TRENDS = "search", "trends"
NAMES = (SEARCH, TRENDS)
"""The read models that `fanline rebuild` builds again in one go."""

REASONS = {
    "archive": (
        "The archive keeps the log's own records and computes nothing of them: there is nothing to build again. Days "
        "that Kafka still has are written again when the flow archive is stopped, their files are removed, and it is "
        "sent back by fanline offsets reset archive --to TIME (docs/operations/rebuild.md)."
    ),
    "notifications": "Notifications are rows of the database; what is built again of them is the model inboxes.",
}
"""Why others are not built again, in a sentence."""

# What follows from uses comes after them: what is counted meanwhile may lose it, and gets it again, but not keep it.
_TREND_USES = (b"tag_use", b"tag_post", b"post_use", b"post_like", b"trending")
TREND_PREFIXES = (*_TREND_USES, b"tag_by", b"tag_people", b"post_by", b"post_people")
COUNT_SECONDS = 600.0
LOOK_SECONDS = 0.1


def build(stores: Stores, name: str) -> None:
    """Build one of `NAMES` again."""
    if name == SEARCH:
        click.get_current_context().invoke(reindex, keep_old=False, rollback=False)
    else:
        click.echo(f"trends: counted again in {count_trends(stores):.1f} s")


def count_trends(stores: Stores) -> float:
    """Have the flow count trends again from nothing; the seconds that it took.

    Rankings come from SQL meanwhile. Raises `DependencyUnavailable` when the flow does not do it in time. Whoever gives
    up earlier leaves no mark behind that says that all is counted.
    """
    started = time.monotonic()
    marks = [command(key, b"UNLINK") for key in trend_marks.mark_keys()]
    # From when the flow has begun to count until it has done so, nobody ranks what is half there.
    stores.redis(marks)
    _wait_until(started, lambda: stores.drive(trend_marks.are_being_counted()))
    for prefix in TREND_PREFIXES:
        for keys in stores.scan(prefix + b":*"):
            # The marks again, before and after and in one go: what is deleted has to be counted after that.
            stores.redis([*marks, *(command(key, b"UNLINK") for key in keys), *marks])
    _wait_until(started, lambda: stores.drive(trend_marks.are_counted()))
    return time.monotonic() - started


def _wait_until(started: float, reached: Callable[[], bool]) -> None:
    while not reached():
        if time.monotonic() > started + COUNT_SECONDS:
            raise DependencyUnavailable("The flow trends has not counted again in time; is it running?")
        time.sleep(LOOK_SECONDS)


def refuse(name: str, known: list[str]) -> ConfigurationError:
    """Why there is nothing to build again under a name."""
    reason = REASONS.get(name, f"There is no read model {name!r} to build again; there are {', '.join(known)}.")
    return ConfigurationError(reason)
