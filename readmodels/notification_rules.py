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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

Decision = Literal["accept", "filter", "drop"]

DEFAULTS: Final[Mapping[str, Decision]] = {
    "for_not_following": "accept",
    "for_not_followers": "accept",
    "for_new_accounts": "accept",
    "for_private_mentions": "filter",
    "for_limited_accounts": "filter",
}
"""The parts of a policy, and what they are for whoever has set none; as in Mastodon."""

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

    def note(self, hints: Iterable["Hint"]) -> None:
        """Look there as well."""
        for name, what in hints:
            getattr(self, name).add(what)


class Told(NamedTuple):
    """Somebody who is to be told of a post: the recipient, the notification's type and the post."""

    user_id: UUID
    type: str
    post_id: int


class Candidate(NamedTuple):
    """Something to tell somebody, with all that decides whether they are told.

    A row of `CANDIDATES`, and of `POLICIES` where it may be filtered.
    """

    user_id: UUID
    type: str
    from_account_id: UUID
    post_id: int | None
    report_id: UUID | None
    moderation_action_id: UUID | None
    happened_at: datetime
    recipient_suspended: bool
    sender_suspended: bool
    visible: bool
    """The recipient may see the post."""
    blocked: bool
    """One of the two blocks the other."""
    muted: bool
    """The recipient hides the sender's notifications."""
    conversation_muted: bool
    hidden: bool
    """A filter of the recipient's hides the post."""
    may_be_filtered: bool
    """The recipient has a policy, or one of the defaults may apply. Otherwise nothing that follows is asked for."""
    sender_limited: bool = False
    sender_since: datetime = datetime.min.replace(tzinfo=UTC)
    for_not_following: Decision = DEFAULTS["for_not_following"]
    for_not_followers: Decision = DEFAULTS["for_not_followers"]
    for_new_accounts: Decision = DEFAULTS["for_new_accounts"]
    for_private_mentions: Decision = DEFAULTS["for_private_mentions"]
    for_limited_accounts: Decision = DEFAULTS["for_limited_accounts"]
    following: bool = False
    followed_since: datetime | None = None
    """Since when the sender follows the recipient."""
    permitted: bool = False
    """The recipient has accepted the sender's notifications, or the sender is staff who writes to them."""
    unasked_private_mention: bool = False
    """A direct post in no thread in which the recipient has written to the sender directly."""


Hint = tuple[str, Any]
"""Something to look at: the name of a set of `Look`, and what belongs into it."""


def hints(name: str, event: Mapping[str, Any]) -> Sequence[Hint]:
    """Where a record of the topic `name` says to look: a domain event, or a row of `cdc.blocks`.

    Other records say nothing. Raises `KeyError` or `ValueError` when the record is not as the topic's are.
    """
    match name:
        case "engagement.recorded" if event["kind"] == "favourite":
            ended = event["undone"]
            pair = UUID(event["account_id"]), int(event["post_id"])
            return (("ended_favourites" if ended else "favourites", pair),)
        case "post.created" if event["repost_of_id"] is not None:
            return (("reposts", int(event["post_id"])),)
        case "post.created":
            return (("posts", int(event["post_id"])), ("published", int(event["post_id"])))
        case "post.updated":
            return (("posts", int(event["post_id"])), ("edited", int(event["post_id"])))
        case "post.deleted" if event["repost_of_id"] is not None:
            return (("ended_reposts", (UUID(event["author_id"]), int(event["repost_of_id"]))),)
        case "follow.created":
            return (("follows", _pair(event)), ("ended_requests", _pair(event)))
        case "follow.deleted":
            return (("ended_follows", _pair(event)),)
        case "follow.requested":
            return (("ended_requests" if event["undone"] else "follow_requests", _pair(event)),)
        case "report.created":
            return (("reports", UUID(event["report_id"])),)
        case "moderation.recorded":
            return (("actions", UUID(event["action_id"])),)
        case "cdc.blocks" if event["__deleted"] != "true":
            return (("blocks", (UUID(event["blocker_id"]), UUID(event["blocked_id"]))),)
        case "account.created":
            return (("sign_ups", UUID(event["account_id"])),)
    return ()


def decide(candidate: Candidate) -> Decision:
    """Whether the recipient is told: accept, filter (shown as a request only) or drop."""
    c = candidate
    if c.recipient_suspended or c.sender_suspended or not c.visible:
        return "drop"
    if c.type == "moderation_warning":
        return "accept"
    if c.blocked or c.muted or c.conversation_muted or c.hidden:
        return "drop"
    if c.type not in FILTERABLE or not c.may_be_filtered or c.permitted:
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


class Fact(NamedTuple):
    """A candidate with what follows from it alone."""

    candidate: Candidate
    happened_us: int
    """Microseconds since the epoch."""
    sender: str
    cause: int
    decision: Decision

    @property
    def key(self) -> tuple[UUID, int]:
        """What a row of `notifications` is unique by: the recipient and the cause."""
        return self.candidate.user_id, self.cause


def fact(candidate: Candidate) -> Fact:
    """The candidate decided and named."""
    happened_us, sender = microseconds(candidate.happened_at), str(candidate.from_account_id)
    return Fact(candidate, happened_us, sender, _cause(candidate, happened_us, sender), decide(candidate))


def cause(candidate: Candidate) -> int:
    """The hash of what a notification tells of, as a signed 64-bit number."""
    return fact(candidate).cause


def identifier(candidate: Candidate, probe: int = 0) -> int:
    """The id of a notification at a probe, counted from 0."""
    return identifier_of(fact(candidate), probe)


def identifier_of(fact: Fact, probe: int = 0) -> int:
    """The same, of a fact."""
    named = b"%d %s %d" % (fact.cause, fact.candidate.user_id.bytes, probe)
    ms = fact.happened_us // 1000 + probe // PROBES_A_MS
    return ms << _ID_BITS | int.from_bytes(blake2b(named, digest_size=2).digest())


def _cause(c: Candidate, happened_us: int, sender: str) -> int:
    occurrence = happened_us if c.type in RECURRING else 0
    what = f"{c.type} {sender} {c.post_id} {c.report_id} {c.moderation_action_id} {occurrence}"
    return int.from_bytes(blake2b(what.encode(), digest_size=8).digest(), signed=True)


def microseconds(moment: datetime) -> int:
    """Microseconds since the epoch, exactly."""
    return round(moment.timestamp() * 1_000_000)


def _pair(event: Mapping[str, Any]) -> tuple[UUID, UUID]:
    return UUID(event["follower_id"]), UUID(event["followee_id"])
