"""What a viewer sees of a home timeline: the rules of `timelines.HOME`, over facts that were read from anywhere.

- one's own posts, and of followed people all but direct ones (which are never in a timeline but one's own);
- a reply only if it is to oneself, to its own author or to somebody followed;
- a repost only of people whose reposts the viewer wants, always one's own;
- nothing by, and no repost of, somebody blocked in either direction or muted;
- of a post and its reposts only the newest that is visible.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from readmodels.entries import Entry
from readmodels.filters import NO_FILTERS, Filters


class Hidden(Enum):
    """The rules by which an entry is not shown."""

    DELETED = "deleted"
    AUTHOR_HIDDEN = "author hidden"
    """Blocked in either direction, or muted."""
    NOT_FOLLOWED = "not followed"
    ORIGINAL_DELETED = "original deleted"
    ORIGINAL_AUTHOR_HIDDEN = "original's author hidden"
    REPOSTS_UNWANTED = "reposts unwanted"
    ANSWERS_A_STRANGER = "answers a stranger"


@dataclass(frozen=True, slots=True)
class PostFacts:
    """What the rules need to know of a post; accounts are 16-byte ids."""

    author: bytes
    in_reply_to_account: bytes | None = None


@dataclass(frozen=True, slots=True)
class Viewer:
    """What the rules need to know of a viewer; accounts are 16-byte ids."""

    id: bytes
    followees: frozenset[bytes]
    without_reposts: frozenset[bytes] = frozenset()
    hidden: Mapping[bytes, int] = field(default_factory=dict)
    """Blocked and muted accounts, with the time in ms at which a mute ends; 0: never."""
    filters: Filters = NO_FILTERS
    """What the viewer does not want to read. It stays in the timeline, marked; the client acts on it."""


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a timeline is wanted: Mastodon's paging parameters."""

    limit: int
    max_id: int | None = None
    since_id: int | None = None
    min_id: int | None = None

    @property
    def above(self) -> int:
        """Only ids above this one are wanted."""
        return max(self.since_id or 0, self.min_id or 0)


def is_visible(entry: Entry, facts: Mapping[int, PostFacts | None], viewer: Viewer, now_ms: int) -> bool:
    """Whether the viewer may see an entry, leaving newer reposts of the same post aside.

    `facts` has the entry's post and its original; None for a post that is deleted.
    """
    return why_hidden(entry, facts, viewer, now_ms) is None


def why_hidden(entry: Entry, facts: Mapping[int, PostFacts | None], viewer: Viewer, now_ms: int) -> Hidden | None:
    """The first rule that hides an entry from the viewer, newer reposts aside; None if none does."""
    post = facts[entry.id]
    if post is None:
        return Hidden.DELETED
    if _is_hidden(post.author, viewer, now_ms):
        return Hidden.AUTHOR_HIDDEN
    own = post.author == viewer.id
    if not own and post.author not in viewer.followees:
        return Hidden.NOT_FOLLOWED
    if entry.original != entry.id:
        original = facts[entry.original]
        if original is None:
            return Hidden.ORIGINAL_DELETED
        if _is_hidden(original.author, viewer, now_ms):
            return Hidden.ORIGINAL_AUTHOR_HIDDEN
        return None if own or post.author not in viewer.without_reposts else Hidden.REPOSTS_UNWANTED
    target = post.in_reply_to_account
    if target is None or target in (viewer.id, post.author) or target in viewer.followees:
        return None
    return Hidden.ANSWERS_A_STRANGER


def select_page(
    entries: Sequence[Entry], page: Page, viewer: Viewer, now_ms: int
) -> Generator[set[int], Mapping[int, PostFacts | None], list[Entry]]:
    """Chooses a page, newest first, from entries that are sorted newest first.

    A generator that yields ids whose facts it needs and is sent all of them, so that only a page's worth of posts
    is looked at. The entries must include all newer ones, as these decide which repost is shown.
    """
    known: dict[int, PostFacts | None] = {}
    reposted: dict[int, list[Entry]] = {}
    candidates = []
    for entry in entries:
        if entry.id <= page.above:
            break
        if page.max_id is None or entry.id < page.max_id:
            candidates.append(entry)
        if entry.original != entry.id:
            reposted.setdefault(entry.original, []).append(entry)
    if page.min_id is not None:
        candidates.reverse()
        # An entry's newer reposts lie on the far side of the page, so all of them are known already.
    chosen: list[Entry] = []
    position = 0
    while len(chosen) < page.limit and position < len(candidates):
        batch = candidates[position : position + page.limit]
        position += len(batch)
        needed = {post_id for entry in batch for post_id in (entry.id, entry.original)}
        for entry in batch:
            needed.update(newer.id for newer in reposted.get(entry.original, ()) if newer.id > entry.id)
        missing = needed - known.keys()
        if missing:
            known.update((yield missing))
        for entry in batch:
            if len(chosen) < page.limit and is_visible(entry, known, viewer, now_ms):
                newer_ones = (newer for newer in reposted.get(entry.original, ()) if newer.id > entry.id)
                if not any(is_visible(newer, known, viewer, now_ms) for newer in newer_ones):
                    chosen.append(entry)
    return sorted(chosen, reverse=True)


def _is_hidden(account: bytes, viewer: Viewer, now_ms: int) -> bool:
    ends_ms = viewer.hidden.get(account)
    return ends_ms is not None and (ends_ms == 0 or ends_ms > now_ms)
