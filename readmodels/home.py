"""Reads a home timeline out of Redis the plain way, command by command: for audits, simulations and the curious.

The API reads the same lists by the same rules with less work (api/timelines.py).
"""

from dataclasses import dataclass
from uuid import UUID

from readmodels import documents, followers, readiness, recents, timelines
from readmodels.effects import Effects, Redis, command
from readmodels.entries import NO_GENERATION, Entry, complete_above, newest_first
from readmodels.home_rules import Viewer
from readmodels.relations import VIEWER, viewer


@dataclass(frozen=True, slots=True)
class Home:
    """A warm home timeline: everything above `floor` is in `entries`, newest first, before any rule."""

    floor: int
    entries: list[Entry]
    viewer: Viewer


def read_home(viewer_id: UUID, public_url: str) -> Effects[Home | None]:
    """A home timeline with all that its reader needs; None if it is cold, or not to be trusted."""
    generation = yield from readiness.generation()
    header_items, items = yield Redis(timelines.read(viewer_id))
    floor = complete_above(header_items[0] if header_items else None, generation or b"")
    if generation is None or floor is None:
        return None
    relations = yield from read_viewer(viewer_id, public_url)
    celebrities = yield Redis([command(followers.celebrities_key(), b"SMEMBERS")])
    pulled = [UUID(bytes=account) for account in celebrities[0] if account in relations.followees]
    if pulled:
        for recent in (yield Redis([recents.read(author) for author in pulled])):
            items += recent[1:]
            floor = max(floor, (complete_above(recent[0], NO_GENERATION) or 0) if recent else 0)
    return Home(floor, [entry for entry in newest_first(items) if entry.id > floor], relations)


def read_viewer(viewer_id: UUID, public_url: str) -> Effects[Viewer]:
    """A viewer's relations, read from the database if Redis does not have them."""
    reference = (VIEWER, viewer_id)
    body = documents.body((yield Redis([documents.read(reference)]))[0])
    if body is None:
        body = (yield from documents.fill([reference], public_url))[reference]
    return viewer(viewer_id, body)
