"""`fanline why`."""

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from audit.why import Answer


@click.command()
@click.argument("post")
@click.argument("viewer")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=30.0, show_default=True, help="Look through the log so long."
)
def why(post: str, viewer: str, as_json: bool, seconds: float) -> None:
    """Say why POST (id or address) is or is not in the home timeline of VIEWER (handle or id).

    Names the rule that decides, the state of the timeline in Redis, and the records in Kafka that made it so.
    """
    from audit.stores import Stores
    from audit.why import why as ask
    from audit.why_facts import post_id_of, viewer_of
    from fanline.logging import configure_logging
    from fanline.settings import get_settings

    configure_logging("why", level="warning")
    settings, post_id = get_settings(), post_id_of(post)
    stores = Stores(settings)
    try:
        answer = ask(settings, stores, post_id, viewer_of(stores, viewer), seconds)
    finally:
        stores.close()
    click.echo(json.dumps(as_dictionary(answer)) if as_json else as_text(answer, viewer))


def as_dictionary(answer: "Answer") -> dict[str, Any]:
    """The answer as `--json` prints it."""
    return {
        "post": str(answer.post_id),
        "viewer": str(answer.viewer),
        "shown": answer.shown,
        "reasons": [{"code": reason.code, "sentence": reason.sentence} for reason in answer.reasons],
        "events": [
            {
                "topic": event.topic,
                "partition": event.partition,
                "offset": event.offset,
                "at": _time(event.timestamp_ms),
                "value": event.value,
            }
            for event in answer.events
        ],
        "complete": answer.complete,
    }


def as_text(answer: "Answer", viewer: str) -> str:
    """The answer as lines of text."""
    from audit.why_events import told

    verdict = "is" if answer.shown else "is not"
    lines = [f"{answer.post_id} {verdict} in the home timeline of {viewer}."]
    lines += [f"  {reason.sentence}" for reason in answer.reasons]
    if answer.events:
        lines.append("The log:")
    lines += [
        f"  {_time(event.timestamp_ms)}  {event.topic} [{event.partition}] offset {event.offset}: {told(event)}"
        for event in answer.events
    ]
    if not answer.complete:
        lines.append("  The log is longer than what was looked through; --seconds gives more time.")
    return "\n".join(lines)


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1_000, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z"
