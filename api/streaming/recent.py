"""What has lately happened to posts, as this process has seen it in the log.

It closes the gap between the log, which the streams follow, and the read models, which come some time after it: a
client that comes back is given what the read models have, and from here what they may not have yet. And deletes and
edits can be told to somebody who was away for a moment only from here.
"""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from api.streaming.client import DELETE, EDIT, UPDATE
from connectors.offsets import Partition
from fanline.changes import RowChange
from readmodels.entries import Entry
from readmodels.home_rules import PostFacts

KEPT_SECONDS = 120.0
"""As long as a client needs to notice that its connection broke, and to come back."""

MAX_KEPT = 20_000
"""Some ten megabytes."""


@dataclass(slots=True)
class PostEvent:
    """One change of one post. Accounts are 16-byte ids."""

    event: str
    entry: Entry
    author: bytes
    facts: PostFacts
    visibility: str
    is_reply: bool
    position: tuple[int, int]
    """Where the commit is in the database's log: comparable with other tables' changes."""
    log_ms: int
    place: Partition
    offset: int
    seen_at: float
    version: str

    @property
    def is_listed(self) -> bool:
        """Whether it belongs into the public timeline, as far as the post itself decides."""
        return self.is_tagged and not self.is_reply

    @property
    def is_tagged(self) -> bool:
        """Whether it belongs into the timelines of its hashtags."""
        return self.visibility == "public" and self.entry.original == self.entry.id


def post_event(change: RowChange, place: Partition, offset: int) -> PostEvent | None:
    """The event in a change of `posts`; None for what no stream tells. Raises LookupError, ValueError or TypeError."""
    row = change.row
    edited_at = row.get("edited_at")
    match change.op:
        case "c":
            event = UPDATE
        case "d":
            event = DELETE
        case "u" if edited_at:
            event = EDIT
        case _:
            return None
    reply_to = row.get("in_reply_to_account_id")
    author = UUID(row["author_id"]).bytes
    identifier = int(row["id"])
    return PostEvent(
        event,
        Entry(identifier, int(row["repost_of_id"] or identifier)),
        author,
        PostFacts(author, UUID(reply_to).bytes if reply_to else None),
        row["visibility"],
        bool(reply_to),
        change.position,
        change.source_ms,
        place,
        offset,
        time.monotonic(),
        str(edited_at or ""),
    )


class Recent:
    """The post events of the last minutes, in the order in which they came."""

    def __init__(self) -> None:
        self._events: deque[PostEvent] = deque()
        self._edits: dict[int, str] = {}
        self._complete_from: dict[Partition, int] = {}

    def begin(self, starts: Mapping[Partition, int]) -> None:
        """Tell from which offset on partitions are read, or are read again after a gap."""
        for place, offset in starts.items():
            self._complete_from[place] = max(offset, self._complete_from.get(place, 0))

    def add(self, event: PostEvent) -> bool:
        """Keep an event; False if it is one that was told before (a row that changed again after its edit)."""
        identifier = event.entry.id
        if event.event == EDIT:
            if self._edits.get(identifier) == event.version:
                return False
            self._edits[identifier] = event.version
        self._events.append(event)
        oldest = time.monotonic() - KEPT_SECONDS
        while self._events and (len(self._events) > MAX_KEPT or self._events[0].seen_at < oldest):
            gone = self._events.popleft()
            self._complete_from[gone.place] = max(self._complete_from.get(gone.place, 0), gone.offset + 1)
            if gone.event == EDIT and self._edits.get(gone.entry.id) == gone.version:
                del self._edits[gone.entry.id]
        return True

    def __iter__(self) -> Iterator[PostEvent]:
        return iter(tuple(self._events))

    def by_author(self, author: bytes, after: tuple[int, int]) -> list[PostEvent]:
        """New posts of an author that were committed after a place in the database's log."""
        return [
            event
            for event in self._events
            if event.author == author and event.event == UPDATE and event.position > after
        ]

    def joins(self, applied: Mapping[Partition, int]) -> bool:
        """Whether everything from these offsets on is here, so that nothing lies between it and what they stand for."""
        return all(applied.get(place, 0) >= offset for place, offset in self._complete_from.items())
