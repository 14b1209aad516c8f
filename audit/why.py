"""`fanline why`: why a post is or is not in somebody's home timeline, and the events that made it so.

The rules are those of every read (readmodels/home_rules.py), over facts that the database has now. An answer is a list
of reasons; each has a code, for programs, and a sentence, for people.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from audit.stores import Stores
from audit.why_events import events_of, passed_by_flow
from audit.why_facts import Facts, Kept, entry_of, gather, kept
from connectors.row_history import Record
from fanline.settings import Settings
from readmodels.entries import Entry
from readmodels.home_rules import Hidden, is_visible, why_hidden


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that decides."""

    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a read of the timeline shows now, why, and the records that tell of it, in the order of their times."""

    post_id: int
    viewer: UUID
    shown: bool
    reasons: list[Reason]
    events: list[Record]
    complete: bool
    """Whether the log was read to its end."""

    @property
    def codes(self) -> list[str]:
        """The codes of the reasons."""
        return [reason.code for reason in self.reasons]


def why(settings: Settings, stores: Stores, post_id: int, viewer: UUID, seconds: float = 30.0) -> Answer:
    """The answer for one post and one viewer; raises `DependencyUnavailable` when a server does not answer.

    The log is looked through for at most `seconds`.
    """
    facts = gather(stores, post_id, viewer)
    events, complete = events_of(settings, facts, post_id, seconds)
    reasons = [*by_rules(facts, events)]
    visible = not reasons
    if visible:
        reasons = [*in_favour(facts)]
    state = kept(stores, post_id, viewer, facts.post["author_id"] if facts.post else None)
    shown, of_pipeline = by_pipeline(settings, facts, state, visible, events)
    reasons += of_pipeline
    if facts.in_oracle != visible:
        told = "shows" if facts.in_oracle else "does not show"
        reasons.append(Reason("disagreement", f"But the query that defines home timelines {told} it: a defect."))
    return Answer(post_id, viewer, shown, reasons, events, complete)


def by_rules(facts: Facts, events: list[Record]) -> Iterator[Reason]:
    """Why the rules keep the post from the viewer; nothing if they do not."""
    post = facts.post
    if post is None:
        yield _gone(events)
        return
    now_ms = time.time_ns() // 1_000_000
    if post["visibility"] == "direct" and post["author_id"] != facts.viewer:
        yield Reason("direct", "It is a direct post: these are in no home timeline but their author's.")
        return
    hidden = why_hidden(entry_of(post), facts.posts, facts.relations, now_ms)
    if hidden is not None:
        yield from _hidden(facts, hidden)
        return
    original = post["repost_of_id"] or post["id"]
    for newer in facts.newer_reposts:
        if is_visible(Entry(newer["id"], original), facts.posts, facts.relations, now_ms):
            by, since = facts.name(newer["author_id"]), _time(newer["created_at"])
            sentence = f"The newer repost {newer['id']} by {by} of {since} is shown instead of it."
            yield Reason("newer_repost", sentence)
            return


def in_favour(facts: Facts) -> Iterator[Reason]:
    """Why the rules show the post."""
    post = facts.post
    assert post is not None
    author = facts.name(post["author_id"])
    if post["author_id"] == facts.viewer:
        yield Reason("own", f"{author} has written it, and one's own posts are in one's home timeline.")
    elif facts.follow is not None:
        since = _time(facts.follow["created_at"])
        yield Reason("follow", f"{facts.name(facts.viewer)} follows {author} since {since}.")
    if post["repost_of_id"]:
        yield Reason("repost", f"It is a repost of {post['repost_of_id']}, and reposts of {author} are wanted.")
    elif post["in_reply_to_account_id"]:
        to = facts.name(post["in_reply_to_account_id"])
        yield Reason("reply", f"It answers {to}, whose conversations with {author} the viewer sees.")


def by_pipeline(
    settings: Settings, facts: Facts, state: Kept, visible: bool, events: list[Record]
) -> tuple[bool, list[Reason]]:
    """Whether a read shows the post now, and what of the way to Redis has to do with it."""
    post = facts.post
    if not visible or post is None:
        return False, []
    if not state.ready:
        return True, [Reason("not_ready", "Redis is being built again: the database answers every read.")]
    if state.floor is None:
        return True, [Reason("cold", "The timeline is cold: the next read is answered by the database and warms it.")]
    if state.has:
        return True, [Reason("in_list", "It is in the viewer's list in Redis.")]
    if post["id"] <= state.floor:
        floor = f"It lies below the floor of the list ({state.floor}), where the database answers."
        return True, [Reason("below_floor", floor)]
    author = facts.name(post["author_id"])
    if state.celebrity and state.in_recents:
        pulled = f"{author} has so many followers that readers merge the list of {author}'s own posts, which has it."
        return True, [Reason("celebrity", pulled)]
    behind = passed_by_flow(settings, events)
    if behind:
        return False, [Reason("lag", f"The flow has not come to it: {behind}.")]
    missing = "It is not in the viewer's list, although the flow has passed it: drift, which an audit repairs."
    return False, [Reason("drift", missing)]


def _hidden(facts: Facts, hidden: Hidden) -> Iterator[Reason]:
    post = facts.post
    assert post is not None
    viewer, author = facts.name(facts.viewer), facts.name(post["author_id"])
    match hidden:
        case Hidden.AUTHOR_HIDDEN:
            yield from _relations(facts, post["author_id"])
        case Hidden.ORIGINAL_AUTHOR_HIDDEN:
            yield from _relations(facts, post["original_author_id"])
        case Hidden.NOT_FOLLOWED:
            yield Reason("not_followed", f"{viewer} does not follow {author}.")
        case Hidden.REPOSTS_UNWANTED:
            since = _time(facts.follow["created_at"]) if facts.follow else "unknown"
            sentence = f"It is a repost, and {viewer}, who follows {author} since {since}, does not want these."
            yield Reason("reposts_unwanted", sentence)
        case Hidden.ANSWERS_A_STRANGER:
            to = facts.name(post["in_reply_to_account_id"])
            yield Reason("reply", f"It answers {to}, whom {viewer} does not follow.")
        case Hidden.DELETED | Hidden.ORIGINAL_DELETED:
            yield Reason("deleted", "It, or what it repeats, was deleted while this was looked up.")


def _relations(facts: Facts, other: UUID) -> Iterator[Reason]:
    viewer, name = facts.name(facts.viewer), facts.name(other)
    for block in facts.blocks:
        if block["blocked_id"] == other:
            yield Reason("block", f"{viewer} blocks {name} since {_time(block['created_at'])}.")
        elif block["blocker_id"] == other:
            yield Reason("blocked_by", f"{name} blocks {viewer} since {_time(block['created_at'])}.")
    for mute in facts.mutes:
        if mute["muted_id"] == other:
            until = f" until {_time(mute['expires_at'])}" if mute["expires_at"] else ""
            yield Reason("mute", f"{viewer} mutes {name} since {_time(mute['created_at'])}{until}.")


def _gone(events: list[Record]) -> Reason:
    deletes = [event for event in events if _is_delete(event.value)]
    if deletes:
        last = deletes[-1]
        where = f"{last.topic} [{last.partition}] offset {last.offset}"
        at = datetime.fromtimestamp(last.timestamp_ms / 1_000, UTC)
        return Reason("deleted", f"It was deleted at {_time(at)} ({where}).")
    return Reason("unknown", "There is no such post, and as far as the log goes there never was.")


def _is_delete(value: Any) -> bool:
    return isinstance(value, dict) and value.get("__deleted") == "true"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
