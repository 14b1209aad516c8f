"""`fanline dlq`: the records that flows have rejected, and what to do with them."""

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from connectors.applied import AppliedOffsets
from connectors.flows import EVERY_FLOW, flows_of, group_of, retry_topic
from connectors.letter_log import Resolver, read_ledger, read_ledgers, read_records
from connectors.letters import Ledger, Letter, own_headers
from connectors.payload import Payloads, readable
from fanline.errors import ConfigurationError, FanlineError
from fanline.settings import Settings, get_settings

FLOW = click.argument("flow", type=click.Choice(list(EVERY_FLOW)))
REASON = click.option("--reason", default="", help="Only letters whose reason contains this.")
TOPIC = click.option("--topic", default="", help="Only records of this topic.")
PARTITION = click.option("--partition", type=click.IntRange(min=0), help="Only records of this partition.")
OFFSETS = click.option("--offsets", default="", help="Only these letters, by offset: 3,7-20.")
POLL_SECONDS = 0.1


@click.group()
def dlq() -> None:
    """Show, replay or drop the records that flows could not take (dead letters)."""


@dlq.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_letters(as_json: bool) -> None:
    """Count each flow's open letters by reason."""
    settings = get_settings()
    flows = flows_of(settings.database_dialect)
    report = {flow: summary(ledger) for flow, ledger in read_ledgers(flows, settings).items()}
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    for flow, found in report.items():
        past = ", ".join(f"{count} {how}" for how, count in found["resolved"].items())
        click.echo(f"{flow}: {found['open']} open" + (f" ({past})" if past else ""))
        for reason in found["reasons"]:
            between = reason["oldest"] if reason["count"] == 1 else f"{reason['oldest']} to {reason['newest']}"
            click.echo(f"  {reason['count']:>6}  {reason['example']['reason']}")
            click.echo(f"          {between}, for example {place(reason['example'])}")


def summary(ledger: Ledger) -> dict[str, Any]:
    """A flow's open letters by reason, those with the same but for numbers together, and what became of others."""
    letters = ledger.open()
    kinds = Counter(letter.kind for letter in letters)
    reasons = []
    for kind, count in kinds.most_common():
        same = [letter for letter in letters if letter.kind == kind]
        times = [letter.rejected_ms for letter in same]
        reasons.append(
            {"count": count, "oldest": iso(min(times)), "newest": iso(max(times)), "example": described(same[-1])}
        )
    return {"open": len(letters), "resolved": dict(ledger.resolved), "reasons": reasons}


@dlq.command()
@FLOW
@REASON
@TOPIC
@PARTITION
@OFFSETS
@click.option("--limit", type=click.IntRange(min=1), default=10, show_default=True, help="Letters to show.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
def show(flow: str, reason: str, topic: str, partition: int | None, offsets: str, limit: int, as_json: bool) -> None:
    """Print open letters of FLOW: where the records were, why they were rejected, headers and payload."""
    settings = get_settings()
    letters = select(read_ledger(flow, settings).open(), reason, topic, partition, offsets)
    payloads = Payloads(settings)
    for letter, record in read_records(flow, letters[:limit], settings):
        shown = described(letter) | {
            "key": payloads.decoded(record.key),
            "headers": {name: readable(value) for name, value in own_headers(record)},
            "payload": payloads.decoded(record.value),
        }
        click.echo(json.dumps(shown) if as_json else text_of(shown))
    if len(letters) > limit and not as_json:
        click.echo(f"{len(letters) - limit} more: --limit shows them.")
    if not letters and not as_json:
        click.echo("There is no such letter.")


@dlq.command()
@FLOW
@REASON
@TOPIC
@PARTITION
@OFFSETS
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=30.0, show_default=True, help="Seconds to wait for the flow."
)
def replay(flow: str, reason: str, topic: str, partition: int | None, offsets: str, timeout: float) -> None:
    """Send the records of open letters back to FLOW, each once; exit 1 unless the flow takes them all.

    No other flow reads them. A row change comes as what its row is now, so a late one does no harm.
    """
    settings = get_settings()
    resolver = Resolver(flow, settings)
    letters = select(read_ledger(flow, settings).open(), reason, topic, partition, offsets)
    gone = resolver.replay(letters)
    for letter in gone:
        click.echo(
            f"{place(described(letter))} cannot be replayed: its value was too large for the letter, and is gone."
        )
    sent = len(letters) - len(gone)
    click.echo(f"{sent} sent back to {flow}.")
    if sent and timeout:
        wait_until_read(flow, settings, timeout)
        again = Counter(letter.origin for letter in read_ledger(flow, settings).open())
        rejected = sum(again[letter.origin] for letter in letters if letter not in gone)
        click.echo(f"{sent - rejected} taken, {rejected} rejected again.")
        if rejected:
            raise SystemExit(1)
    if gone:
        raise SystemExit(1)


@dlq.command()
@FLOW
@REASON
@TOPIC
@PARTITION
@OFFSETS
@click.option("--yes", is_flag=True, help="Do not ask.")
def drop(flow: str, reason: str, topic: str, partition: int | None, offsets: str, yes: bool) -> None:
    """Mark open letters of FLOW as not needed any more; Kafka forgets them after 30 days."""
    settings = get_settings()
    resolver = Resolver(flow, settings)
    letters = select(read_ledger(flow, settings).open(), reason, topic, partition, offsets)
    if not letters:
        click.echo("There is no such letter.")
        return
    if not yes:
        click.confirm(f"Drop {len(letters)} letters of {flow}?", abort=True)
    resolver.drop(letters)
    click.echo(f"{len(letters)} letters of {flow} dropped.")


def select(letters: Sequence[Letter], reason: str, topic: str, partition: int | None, offsets: str) -> Sequence[Letter]:
    """The letters that the options choose."""
    tests: list[Callable[[Letter], bool]] = [
        lambda letter: reason.lower() in letter.reason.lower(),
        lambda letter: topic in ("", letter.origin.topic),
        lambda letter: partition in (None, letter.origin.partition),
    ]
    if offsets:
        ranges = parse_offsets(offsets)
        tests.append(lambda letter: any(letter.offset in each for each in ranges))
    return [letter for letter in letters if all(test(letter) for test in tests)]


def parse_offsets(text: str) -> list[range]:
    """`3,7-20` as ranges; raises `ConfigurationError`."""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part.strip())
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ConfigurationError(f"{text!r} are no offsets: {part!r} is no range; write for example 3,7-20.")
        found.append(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found


def wait_until_read(flow: str, settings: Settings, timeout: float) -> None:
    """Return when the flow has passed everything in its retry topic; raises `FanlineError` after the timeout."""
    applied = AppliedOffsets(settings, "fanline-dlq")
    ends = applied.ends(applied.partitions([retry_topic(flow)]))
    deadline = time.monotonic() + timeout
    while True:
        committed = applied.committed({group_of(flow): ends})[group_of(flow)]
        if all(committed[place] >= end for place, end in ends.items()):
            return
        if time.monotonic() > deadline:
            raise FanlineError(
                f"{flow} has not taken them within {timeout:g} s: it is stopped or behind; they wait for it in "
                f"{retry_topic(flow)}."
            )
        time.sleep(POLL_SECONDS)


def described(letter: Letter) -> dict[str, Any]:
    """A letter for people and for JSON."""
    topic, partition, offset = letter.origin
    return {
        "letter": letter.offset,
        "rejected": iso(letter.rejected_ms),
        "reason": letter.reason,
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "recorded": iso(letter.original_ms),
        "replays": letter.replays,
    }


def place(shown: dict[str, Any]) -> str:
    """Letter and origin in one phrase."""
    return f"letter {shown['letter']}, {shown['topic']} [{shown['partition']}] offset {shown['offset']}"


def text_of(shown: dict[str, Any]) -> str:
    """A letter on several lines."""
    lines = [f"{place(shown)}, rejected {shown['rejected']}", f"  reason    {shown['reason']}"]
    if shown["replays"]:
        lines.append(f"  replayed  {shown['replays']} times before")
    lines += [f"  header    {name}: {value}" for name, value in shown["headers"].items()]
    lines.append(f"  key       {json.dumps(shown['key'])}")
    return "\n".join([*lines, f"  payload   {json.dumps(shown['payload'])}"])


def iso(ms: int) -> str:
    """A time in UTC, to the second."""
    return datetime.fromtimestamp(ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
