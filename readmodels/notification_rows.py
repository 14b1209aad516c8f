"""Writes the rows of notifications and their events; `record` and `store` are to be run in one transaction.

A row and its `notification.dispatched` event come together or not at all, and the event only with a row that was really
inserted: whatever is repeated, nobody is told twice. The pages of `recipients` may be read outside of the transactions
that use them, as `CANDIDATES` looks again.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from readmodels import notification_queries as queries
from readmodels.effects import Effects, Query
from readmodels.filters import hides, parse_filters
from readmodels.notification_rules import Candidate, Fact, Look, Told, fact, identifier_of
from readmodels.notifications import group_key

RECIPIENTS_A_PAGE = 2_000
"""Recipients of one post in a transaction: some 200 ms of the database's work."""

POLLS_A_TURN = 50

# The columns of `CANDIDATES`; those of `POLICIES` are the rest.
_ALWAYS = itemgetter(*(name for name in Candidate._fields if name not in Candidate._field_defaults))

Encode = Callable[[str, dict[str, Any]], bytes]
"""Encodes an event by its name (schemas/registry.py)."""


class Row(NamedTuple):
    """A row of `notifications`: the parameters of `INSERT`, an element of each."""

    id: int
    user_id: UUID
    type: str
    from_account_id: UUID
    post_id: int | None
    report_id: UUID | None
    moderation_action_id: UUID | None
    group_key: str
    filtered: bool
    created_at: datetime
    dismissed_at: datetime | None
    cause: int


class Draft(NamedTuple):
    """A row to insert, and the event that tells its recipient; None if nobody is told."""

    row: Row
    recipient: str
    event: bytes | None


class Prepared(NamedTuple):
    """What is to be stored: facts by what makes them one, and their first drafts."""

    facts: dict[tuple[UUID, int], Fact]
    drafts: list[Draft]


class Ended(NamedTuple):
    """A poll that has ended."""

    poll_id: int
    post_id: int
    ended_at: datetime


def wanted(look: Look) -> Effects[list[tuple[int, str]]]:
    """The posts that any number of people may have to be told of, each with the notification's type."""
    if not look.published and not look.edited:
        return []
    parameters = {"published": list(look.published), "edited": list(look.edited)}
    rows = yield Query(queries.WANTED_POSTS, parameters)
    return [(row["post_id"], row["type"]) for row in rows]


def recipients(post_id: int, kind: str, after: UUID) -> Effects[list[Told]]:
    """The next people who are to be told of a post, in the order of their ids."""
    parameters = {"post_id": post_id, "after": after, "limit": RECIPIENTS_A_PAGE}
    rows = yield Query(queries.TOLD_OF[kind], parameters)
    return [Told(row["user_id"], kind, post_id) for row in rows]


def ended_polls() -> Effects[list[Ended]]:
    """The next polls that have ended since `polls_told` was last run, the first ones first."""
    rows = yield Query(queries.ENDED_POLLS, {"limit": POLLS_A_TURN})
    return [Ended(row["id"], row["post_id"], row["expires_at"]) for row in rows]


def polls_told(last: Ended) -> Effects[None]:
    """Notes that everybody was told of the polls that ended up to this one."""
    yield Query(queries.POLLS_TOLD, {"ended_at": last.ended_at, "poll_id": last.poll_id})


def record(look: Look, told: Iterable[Told], encode: Encode) -> Effects[int]:
    """Writes the notifications of what is there now and removes those of what is not; how many rows are new."""
    candidates = yield from find(look, told)
    return (yield from store(look, prepare(candidates, encode), encode))


def find(look: Look, told: Iterable[Told] = ()) -> Effects[list[Candidate]]:
    """What is there now to tell somebody. It only reads, and may be run ahead of the transaction that stores it."""
    parameters = queries.candidate_parameters(look, told)
    if not any(parameters.values()):
        return []
    candidates = [Candidate(*_ALWAYS(row)) for row in (yield Query(queries.CANDIDATES, parameters))]
    return (yield from _with_policies((yield from _filtered(candidates))))


def prepare(candidates: Iterable[Candidate], encode: Encode) -> Prepared:
    """What is found, ready to be stored: all that needs no database, so that a transaction does not wait for it."""
    # The same fact may be told of by several events of one batch.
    facts = {each.key: each for each in map(fact, candidates)}
    return Prepared(facts, _drafts(facts.values(), 0, encode))


def store(look: Look, prepared: Prepared, encode: Encode) -> Effects[int]:
    """Writes what was found and removes the notifications of what is gone; how many rows are new."""
    written = yield from _insert(prepared, encode)
    yield from _tell(written)
    yield from _withdraw(look)
    return len(written)


def _filtered(candidates: list[Candidate]) -> Effects[list[Candidate]]:
    """The candidates with `hidden` as the recipients' filters say of the posts."""
    suspects = [each for each in candidates if each.hidden]
    if not suspects:
        return candidates
    parameters = {"users": [each.user_id for each in suspects], "posts": [each.post_id for each in suspects]}
    now_ms = time.time_ns() // 1_000_000
    hidden = {
        (row["user_id"], row["post_id"])
        for row in (yield Query(queries.FILTERED_TEXTS, parameters))
        if hides(
            parse_filters(row["filters"]),
            "notifications",
            "\n".join((row["spoiler_text"], row["text"], *row["poll_titles"])),
            [row["post_id"]],
            now_ms,
        )
    }
    return [
        each._replace(hidden=(each.user_id, each.post_id) in hidden) if each.hidden else each for each in candidates
    ]


def _with_policies(candidates: list[Candidate]) -> Effects[list[Candidate]]:
    """The candidates with what the recipients' policies look at; of a sender who has gone meanwhile without it."""
    concerned = {number: each for number, each in enumerate(candidates) if each.may_be_filtered}
    if not concerned:
        return candidates
    names = ("user_id", "type", "from_account_id", "post_id")
    parameters = {name: [getattr(each, name) for each in concerned.values()] for name in names}
    facts = {
        row["number"]: {name: row[name] for name in Candidate._field_defaults}
        for row in (yield Query(queries.POLICIES, {"number": list(concerned), **parameters}))
    }
    return [
        each._replace(**facts.get(number, {"may_be_filtered": False})) if number in concerned else each
        for number, each in enumerate(candidates)
    ]


def _insert(prepared: Prepared, encode: Encode) -> Effects[list[Draft]]:
    """Inserts the rows whose cause is not there yet, at the first probe that is free; these rows."""
    waiting, drafts = prepared
    written: list[Draft] = []
    probe = 0
    while waiting:
        rows = [draft.row for draft in drafts]
        columns = dict(zip(Row._fields, map(list, zip(*rows, strict=True)), strict=True))
        inserted = {row["id"] for row in (yield Query(queries.INSERT, columns))}
        if len(inserted) == len(waiting):
            return written + drafts
        written += [draft for draft in drafts if draft.row.id in inserted]
        done = {(row.user_id, row.cause) for row in rows if row.id in inserted}
        if left := [row for row in rows if row.id not in inserted]:
            parameters = {"user_id": [row.user_id for row in left], "cause": [row.cause for row in left]}
            done |= {(row["user_id"], row["cause"]) for row in (yield Query(queries.KNOWN, parameters))}
        waiting = {key: each for key, each in waiting.items() if key not in done}
        probe += 1
        drafts = _drafts(waiting.values(), probe, encode)
    return written


def _drafts(facts: Iterable[Fact], probe: int, encode: Encode) -> list[Draft]:
    """The facts at a probe, without those whose id an earlier one of the batch has."""
    now = datetime.now(UTC)
    taken: dict[int, Draft] = {}
    for each in facts:
        number = identifier_of(each, probe)
        if number not in taken:
            taken[number] = _draft(each, number, now, encode)
    return list(taken.values())


def _draft(fact: Fact, number: int, now: datetime, encode: Encode) -> Draft:
    candidate, decision = fact.candidate, fact.decision
    user_id, kind, from_account_id, post_id, report_id, moderation_action_id, happened_at = candidate[:7]
    key = group_key(kind, number, post_id, happened_at)
    row = Row(
        number, user_id, kind, from_account_id, post_id, report_id, moderation_action_id, key,
        decision == "filter", happened_at, now if decision == "drop" else None, fact.cause,
    )  # fmt: skip
    if decision != "accept":
        return Draft(row, "", None)
    recipient = str(user_id)
    event = {
        "notification_id": str(number),
        "account_id": recipient,
        "type": kind,
        "from_account_id": fact.sender,
        "post_id": None if post_id is None else str(post_id),
        "created_at": fact.happened_us // 1000,
        "group_key": key,
    }
    return Draft(row, recipient, encode("notification.dispatched", event))


def _tell(written: Sequence[Draft]) -> Effects[None]:
    """Replaces the news of earlier edits and writes the events."""
    told = [draft for draft in written if draft.event is not None]
    if updates := [draft.row.id for draft in told if draft.row.type == "update"]:
        yield Query(queries.REPLACE_UPDATES, {"ids": updates})
    if told:
        parameters = {"keys": [draft.recipient for draft in told], "payloads": [draft.event for draft in told]}
        yield Query(queries.INSERT_EVENTS, parameters)


def _withdraw(look: Look) -> Effects[None]:
    for sql, pairs in (
        (queries.WITHDRAW_FAVOURITES, look.ended_favourites),
        (queries.WITHDRAW_REPOSTS, look.ended_reposts),
    ):
        if pairs:
            accounts, posts = zip(*pairs, strict=True)
            yield Query(sql, {"accounts": list(accounts), "posts": list(posts)})
    for sql, people in (
        (queries.WITHDRAW_FOLLOWS, look.ended_follows),
        (queries.WITHDRAW_REQUESTS, look.ended_requests),
    ):
        if people:
            followers, followees = zip(*people, strict=True)
            yield Query(sql, {"followers": list(followers), "followees": list(followees)})
    if look.blocks:
        blockers, blocked = zip(*look.blocks, strict=True)
        yield Query(queries.DISMISS_BLOCKED, {"blockers": list(blockers), "blocked": list(blocked)})
