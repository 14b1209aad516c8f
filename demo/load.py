"""One load: a graph into the database, then posts over REST as its people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from demo.graph import Graph, scale_free
from demo.graph_file import read_graph
from demo.journey import percentile
from demo.plan import Step
from demo.poster import Outcome
from fanline.errors import ConfigurationError

PEOPLE = 1_000
FOLLOWS_EACH = 20


@dataclass(frozen=True, slots=True)
class Source:
    """Where the people come from: a file, or a network that is grown."""

    graph: Graph
    name: str
    """Begins the usernames, and makes a second load of the same source the same people."""


def source(graph_file: Path | None, people: int | None, follows: int | None, seed: int, name: str | None) -> Source:
    """The people of a load; raises `ConfigurationError` when the options contradict each other or the file is bad."""
    if graph_file is not None:
        if people is not None or follows is not None:
            raise ConfigurationError("Give either --graph or --people and --follows: a file has its own people.")
        return Source(read_graph(graph_file), name or _name_of(graph_file))
    count = people or PEOPLE
    edges = follows or min(count * FOLLOWS_EACH, count * (count - 1))
    return Source(scale_free(count, edges, seed), name or f"demo{count}")


def tokens_by_number(steps: Sequence[Step], ids: Sequence[UUID], tokens: Mapping[UUID, str]) -> dict[int, str]:
    """The tokens that a poster needs, by the person's number."""
    return {step.person: tokens[ids[step.person]] for step in steps}


def summary_line(outcome: Outcome) -> str:
    """What a load came to, in one line."""
    written = len(outcome.acknowledged)
    rest = f"{outcome.engagements:,} favourites and bookmarks and {len(outcome.deleted):,} deletes"
    parts = [f"{written:,} posts, {rest} in {outcome.seconds:.1f} s"]
    if outcome.seconds > 0:
        parts.append(f"{written / outcome.seconds:.0f} posts/s")
    if written:
        took = [(item.acknowledged_at - item.sent_at) * 1_000 for item in outcome.acknowledged]
        parts.append(f"POST p50 {percentile(took, 50):.0f} ms p99 {percentile(took, 99):.0f} ms")
    if outcome.latest > 0.1:
        parts.append(f"sent up to {outcome.latest:.1f} s late")
    if outcome.failures:
        parts.append(f"{len(outcome.failures):,} failed")
    return ", ".join(parts)


def _name_of(path: Path) -> str:
    stem = path.name.split(".")[0].lower()
    return (
        "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in stem)[:16].strip("_") or "load"
    )
