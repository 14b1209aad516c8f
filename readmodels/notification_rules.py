"""What becomes a notification, for whom, and which id it gets. Pure.

An event only says where to look (`Look`); what is there now decides (readmodels/notification_queries.py). So
duplicates, replays and reordering across topics change nothing: a like that comes after its undo is not found any more.
Every fact found is decided once: what the recipient's policy drops is stored as dismissed, so that a replay under
another policy does not bring it up.

A notification's *cause* is a 64-bit hash of what it tells of, unique per recipient. Its id is
`milliseconds << 16 | 16 bits of that hash`, the milliseconds being those of the fact (the like, the follow, the post),
so that ids sort by time. Where another notification has the id already the next probe is taken: further hashes of the
same millisecond, and after `PROBES_A_MS` of them those of the next one, which ends even when one post tells 100,000
people.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Literal, NamedTuple
from uuid import UUID

Decision = Literal["accept", "filter", "drop"]

NEW_ACCOUNT = timedelta(days=30)
NEW_FOLLOWER = timedelta(days=3)
"""Until then an account, or somebody's following, counts as new; as in Mastodon."""

ABOUT_ONESELF = frozenset({"poll", "moderation_warning"})
"""Types whose sender may be the recipient."""

FILTERABLE = frozenset({"mention", "reblog", "follow", "follow_request", "favourite"})
"""Types that the policy applies to; as in Mastodon."""

RECURRING = frozenset({"favourite", "reblog", "follow", "follow_request", "update", "poll"})
"""Types whose cause can end and come again: the time of the fact is part of it."""

PROBES_A_MS = 4

_ID_BITS = 16


@dataclass(slots=True)
class Look:
    """Where to look: rows that may have come, and rows that may have gone. Sets, as looking twice finds the same."""

    favourites: set[tuple[UUID, int]] = field(default_factory=set)
    """(account, post)"""
    reposts: set[int] = field(default_factory=set)
    posts: set[int] = field(default_factory=set)
    """New or changed posts, for mentions and replies."""
    published: set[int] = field(default_factory=set)
    """New posts, for those who want to hear of every post of the author."""
    edited: set[int] = field(default_factory=set)
    follows: set[tuple[UUID, UUID]] = field(default_factory=set)
    """(follower, followee)"""
    follow_requests: set[tuple[UUID, UUID]] = field(default_factory=set)
    reports: set[UUID] = field(default_factory=set)
    actions: set[UUID] = field(default_factory=set)
    sign_ups: set[UUID] = field(default_factory=set)
    ended_favourites: set[tuple[UUID, int]] = field(default_factory=set)
    ended_reposts: set[tuple[UUID, int]] = field(default_factory=set)
    """(account, original)"""
    ended_follows: set[tuple[UUID, UUID]] = field(default_factory=set)
    ended_requests: set[tuple[UUID, UUID]] = field(default_factory=set)
    blocks: set[tuple[UUID, UUID]] = field(default_factory=set)
    """(blocker, blocked)"""

    def add(self, other: "Look") -> None:
        """Look there as well."""
        for each in fields(self):
            getattr(self, each.name).update(getattr(other, each.name))


class Told(NamedTuple):
    """Somebody who is to be told of a post: the recipient, the notification's type and the post."""

    user_id: UUID
    type: str
    post_id: int


class Candidate(NamedTuple):
    """Something to tell somebody, with all that decides whether they are told; a row of `CANDIDATES`."""

    user_id: UUID
    type: str
    from_account_id: UUID
    post_id: int | None
    report_id: UUID | None
    moderation_action_id: UUID | None
    happened_at: datetime
    recipient_suspended: bool
    sender_suspended: bool
    sender_limited: bool
    sender_since: datetime
    visible: bool
    """The recipient may see the post."""
    blocked: bool
    """One of the two blocks the other."""
    muted: bool
    """The recipient hides the sender's notifications."""
    conversation_muted: bool
    hidden: bool
    """A filter of the recipient's hides the post."""
    has_policy: bool
    for_not_following: Decision
    for_not_followers: Decision
    for_new_accounts: Decision
    for_private_mentions: Decision
    for_limited_accounts: Decision
    following: bool
    followed_since: datetime | None
    """Since when the sender follows the recipient."""
    permitted: bool
    unasked_private_mention: bool
    """A direct post that answers nothing of the recipient's."""


def look_at(look: Look, name: str, event: Mapping[str, Any]) -> None:
    """Notes where a record of the topic `name` says to look: a domain event, or a row of `cdc.blocks`.

    Other records say nothing. Raises `KeyError` or `ValueError` when the record is not as the topic's are.
    """
    match name:
        case "post.created":
            if event["repost_of_id"] is not None:
                look.reposts.add(int(event["post_id"]))
            else:
                look.posts.add(int(event["post_id"]))
                look.published.add(int(event["post_id"]))
        case "post.updated":
            look.posts.add(int(event["post_id"]))
            look.edited.add(int(event["post_id"]))
        case "post.deleted" if event["repost_of_id"] is not None:
            look.ended_reposts.add((UUID(event["author_id"]), int(event["repost_of_id"])))
        case "engagement.recorded" if event["kind"] == "favourite":
            pairs = look.ended_favourites if event["undone"] else look.favourites
            pairs.add((UUID(event["account_id"]), int(event["post_id"])))
        case "follow.created":
            look.follows.add(_pair(event))
            look.ended_requests.add(_pair(event))
        case "follow.deleted":
            look.ended_follows.add(_pair(event))
        case "follow.requested":
            (look.ended_requests if event["undone"] else look.follow_requests).add(_pair(event))
        case "report.created":
            look.reports.add(UUID(event["report_id"]))
        case "moderation.recorded":
            look.actions.add(UUID(event["action_id"]))
        case "cdc.blocks" if event["__deleted"] != "true":
            look.blocks.add((UUID(event["blocker_id"]), UUID(event["blocked_id"])))
        case "account.created":
            look.sign_ups.add(UUID(event["account_id"]))


def decide(candidate: Candidate) -> Decision:
    """Whether the recipient is told: accept, filter (shown as a request only) or drop."""
    c = candidate
    if c.recipient_suspended or c.sender_suspended or not c.visible:
        return "drop"
    if c.type == "moderation_warning":
        return "accept"
    if c.blocked or c.muted or c.conversation_muted or c.hidden:
        return "drop"
    if c.type not in FILTERABLE or not c.has_policy or c.permitted:
        return "accept"
    return max(_policies(c), key=_SEVERITY.__getitem__, default="accept")


_SEVERITY: Mapping[Decision, int] = {"accept": 0, "filter": 1, "drop": 2}


def _policies(c: Candidate) -> Iterable[Decision]:
    """What each part of the recipient's policy that applies says."""
    if not c.following:
        yield c.for_not_following
        if c.happened_at - c.sender_since < NEW_ACCOUNT:
            yield c.for_new_accounts
        if c.unasked_private_mention:
            yield c.for_private_mentions
        if c.sender_limited:
            yield c.for_limited_accounts
    # Of a follow its own beginning says nothing.
    if c.followed_since is None or c.type == "follow" or c.happened_at - c.followed_since < NEW_FOLLOWER:
        yield c.for_not_followers


def cause(candidate: Candidate) -> int:
    """The hash of what a notification tells of, as a signed 64-bit number."""
    c = candidate
    occurrence = microseconds(c.happened_at) if c.type in RECURRING else 0
    what = f"{c.type} {c.from_account_id} {c.post_id} {c.report_id} {c.moderation_action_id} {occurrence}"
    return int.from_bytes(blake2b(what.encode(), digest_size=8).digest(), signed=True)


def identifier(candidate: Candidate, probe: int = 0) -> int:
    """The id of a notification at a probe, counted from 0."""
    hashed = blake2b(b"%d %s %d" % (cause(candidate), candidate.user_id.bytes, probe), digest_size=2).digest()
    ms = microseconds(candidate.happened_at) // 1000 + probe // PROBES_A_MS
    return ms << _ID_BITS | int.from_bytes(hashed)


def microseconds(moment: datetime) -> int:
    """Microseconds since the epoch, exactly."""
    return round(moment.timestamp() * 1_000_000)


def _pair(event: Mapping[str, Any]) -> tuple[UUID, UUID]:
    return UUID(event["follower_id"]), UUID(event["followee_id"])
