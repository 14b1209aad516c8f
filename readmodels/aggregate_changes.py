"""What row changes make stale in the time series, collected until it is counted again."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from readmodels import deliveries
from readmodels.active_users import add_active
from readmodels.aggregate_queries import AUTHORS_OF_POSTS
from readmodels.aggregates import (
    DAY,
    INSTANCE,
    MINUTE,
    RESOLUTIONS,
    Retention,
    Scope,
    Series,
    count_again,
    drop,
    floor_to,
    oldest_kept,
)
from readmodels.effects import Effects, Query, Redis

TABLES = ("posts", "likes", "follows", "users")
"""The tables whose changes have to be read."""


class Mark(NamedTuple):
    """What one row change makes stale; None or 0 where it has no part in that."""

    minute: int
    """The minute in which the row was made, Unix seconds."""
    account: UUID | None = None
    """Whose own series counts the row."""
    answered: UUID | None = None
    """Who got it as a reply."""
    post: int = 0
    """The post whose author got it."""
    gone: UUID | None = None
    """An account that is gone, or whose post is: likes and reposts of any time have gone with it."""
    actor: UUID | None = None
    """Who was active in that minute."""


@dataclass(slots=True)
class Stale:
    """Marks put together, until what they name is counted again."""

    instance: set[int] = field(default_factory=set)
    """Minutes."""
    accounts: set[tuple[UUID, int]] = field(default_factory=set)
    received: set[tuple[int, int]] = field(default_factory=set)
    """Posts and minutes; who their authors are is looked up when all is counted."""
    gone: set[UUID] = field(default_factory=set)
    active: dict[int, set[UUID]] = field(default_factory=dict)
    """Who was active, by day."""

    def __bool__(self) -> bool:
        return bool(self.instance)

    def add(self, mark: Mark) -> None:
        """Puts a mark to the others."""
        minute = mark.minute
        self.instance.add(minute)
        if mark.account is not None:
            self.accounts.add((mark.account, minute))
        if mark.answered is not None:
            self.accounts.add((mark.answered, minute))
        if mark.post:
            self.received.add((mark.post, minute))
        if mark.gone is not None:
            self.gone.add(mark.gone)
        if mark.actor is not None:
            self.active.setdefault(floor_to(minute, DAY), set()).add(mark.actor)


def mark(table: str, op: str, row: Mapping[str, Any]) -> Mark | None:
    """What a change of one of `TABLES` makes stale; `row` has its old values if it went.

    Raises what a missing or malformed column raises.
    """
    if op == "u" and table != "posts":
        return None  # nothing that is counted changes
    minute = floor_to(int(datetime.fromisoformat(row["created_at"]).timestamp()), MINUTE.width)
    gone = op == "d"
    match table:
        case "posts":
            author, original, answered = UUID(row["author_id"]), row["repost_of_id"], row["in_reply_to_account_id"]
            return Mark(
                minute,
                account=author,
                answered=UUID(answered) if answered else None,
                post=original or 0,
                gone=author if gone and not original else None,
                actor=None if gone else author,
            )
        case "likes":
            return Mark(minute, post=row["post_id"], actor=None if gone else UUID(row["user_id"]))
        case "follows":
            followee = UUID(row["followee_id"])
            return Mark(minute, account=followee, actor=None if gone else UUID(row["follower_id"]))
        case _:
            return Mark(minute, gone=UUID(row["id"]) if gone else None)


def settle(stale: Stale, now: int, kept: Retention) -> Effects[None]:
    """Makes the time series equal to the database again; `now` in Unix seconds. Repeating it changes nothing."""
    if stale.gone:
        yield Redis([drop(account, now, kept) for account in stale.gone])
        yield from deliveries.forget(stale.gone, now, kept)
    accounts = set(stale.accounts)
    if stale.received:
        rows = yield Query(AUTHORS_OF_POSTS, {"ids": list({post for post, _ in stale.received})})
        author = {row["id"]: row["author_id"] for row in rows}
        accounts |= {(author[post], minute) for post, minute in stale.received if post in author}
    buckets: dict[Series, set[int]] = {}
    oldest = {name: oldest_kept(resolution, now, kept) for name, resolution in RESOLUTIONS.items()}
    for scope, minute in [(INSTANCE, minute) for minute in stale.instance] + [*accounts]:
        _add(buckets, scope, minute, oldest)
    if buckets:
        yield from count_again(buckets, now, kept)
    yield from add_active(stale.active, now)


def _add(buckets: dict[Series, set[int]], scope: Scope, minute: int, oldest: Mapping[str, int]) -> None:
    for name, resolution in RESOLUTIONS.items():
        bucket = floor_to(minute, resolution.width)
        if bucket >= oldest[name]:
            buckets.setdefault(Series(scope, resolution, floor_to(minute, resolution.period)), set()).add(bucket)
