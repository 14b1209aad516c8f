"""What goes when an account goes: the keys that would else outlive it.

The follower facts and chunks, the recent list and the timeline of somebody who is gone are removed when the log tells
of it (`forget`, `forget_recents`); inboxes by their own flow (readmodels/inbox.py). Documents and counted values say
for a while that nothing is there, and expire.

Records that come late, or again, may make follower facts and recent lists once more. Each of them adds a row that the
deletion of the account has deleted, and that row's own delete comes after it in the same partition. So whoever applies
a delete looks whether the person is still there, and the last record of all leaves nothing. Timelines and inboxes are
written by flows only where they are there, and a reader who makes one looks for its owner in the database behind the
marker that it has placed: what commits later finds the marker and removes it.
"""

from collections.abc import Collection
from uuid import UUID

from readmodels import followers, recents, timelines
from readmodels.effects import Command, Effects, Redis, command
from readmodels.presence import gone


def forget(people: Collection[UUID]) -> Effects[None]:
    """Removes what is kept of those among some people who are gone; repeating it changes nothing."""
    removals: list[Command] = []
    for person in (yield from gone(people)):
        removals += [
            followers.forget(person),
            followers.remove_celebrity(person),
            _forget_recent(person),
            command(timelines.timeline_key(person), b"UNLINK"),
        ]
    if removals:
        yield Redis(removals)


def forget_recents(authors: Collection[UUID]) -> Effects[None]:
    """Removes the recent lists of those among some authors of deleted posts who are gone."""
    removals = [_forget_recent(author) for author in (yield from gone(authors))]
    if removals:
        yield Redis(removals)


def _forget_recent(author: UUID) -> Command:
    return command(recents.recent_key(author), b"UNLINK")
