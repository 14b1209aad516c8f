"""Who is told of a post: the same rules by which the home timeline and the public timelines show it."""

from collections.abc import Iterable, Mapping
from uuid import UUID

from api.streaming.client import DELETE
from api.streaming.recent import PostEvent
from api.streaming.viewers import Viewers
from readmodels.home_rules import PostFacts, Viewer, is_visible

DIRECT = "direct"


def home_audience(
    event: PostEvent, viewers: Viewers, originals: Mapping[int, PostFacts | None], now_ms: int
) -> set[UUID]:
    """The connected people whose home timelines show the post; of a deleted one, those that may have shown it."""
    author = UUID(bytes=event.author)
    candidates: Iterable[UUID] = [author] if event.visibility == DIRECT else (*viewers.followers(event.author), author)
    return {
        candidate
        for candidate in candidates
        if (relations := viewers.get(candidate)) is not None and shows_at_home(event, relations, originals, now_ms)
    }


def shows_at_home(event: PostEvent, relations: Viewer, originals: Mapping[int, PostFacts | None], now_ms: int) -> bool:
    """Whether one person's home timeline shows the post, newer reposts of it aside.

    `originals` has the reposted posts. What a deleted repost repeated may be gone with it, and is not asked.
    """
    if event.visibility == DIRECT and event.author != relations.id:
        return False
    entry = event.entry
    facts = {entry.id: event.facts, entry.original: event.facts}
    if entry.original != entry.id and event.event != DELETE:
        facts = {entry.id: event.facts, entry.original: originals.get(entry.original)}  # type: ignore[dict-item]
    return is_visible(entry, facts, relations, now_ms)


def hides(relations: Viewer | None, author: bytes, now_ms: int) -> bool:
    """Whether a viewer of a public stream is not shown this author: a block in either direction, or a mute."""
    if relations is None:
        return False
    ends_ms = relations.hidden.get(author)
    return ends_ms is not None and (ends_ms == 0 or ends_ms > now_ms)
