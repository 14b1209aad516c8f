"""Writes the rows of notifications and their events; `record` and `store` are to be run in one transaction.

A row and its `notification.dispatched` event come together or not at all, and the event only with a row that was really
inserted: whatever is repeated, nobody is told twice. The pages of `recipients` may be read outside of the transactions
that use them, as `CANDIDATES` looks again.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from readmodels import notification_queries as queries
from readmodels.effects import Effects, Query
from readmodels.filters import hides, parse_filters
from readmodels.notification_rules import Candidate, Decision, Look, Told, cause, decide, identifier
from readmodels.notifications import group_key

RECIPIENTS_A_PAGE = 2_000
"""Recipients of one post in a transaction: some 200 ms of the database's work."""

POLLS_A_TURN = 50

Encode = Callable[[str, dict[str, Any]], bytes]
"""Encodes an event by its name (schemas/registry.py)."""

Row = dict[str, Any]


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
    return (yield from store(look, candidates, encode))


def find(look: Look, told: Iterable[Told] = ()) -> Effects[list[Candidate]]:
    """What is there now to tell somebody. It only reads, and may be run ahead of the transaction that stores it."""
    parameters = queries.candidate_parameters(look, told)
    if not any(parameters.values()):
        return []
    candidates = [Candidate(**row) for row in (yield Query(queries.CANDIDATES, parameters))]
    return (yield from _filtered(candidates))


def store(look: Look, candidates: Iterable[Candidate], encode: Encode) -> Effects[int]:
    """Writes what was found and removes the notifications of what is gone; how many rows are new."""
    inserted = yield from _insert(candidates, encode)
    yield from _withdraw(look)
    return inserted


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


def _insert(candidates: Iterable[Candidate], encode: Encode) -> Effects[int]:
    # The same fact may be told of by several events of one batch.
    waiting = {(each.user_id, cause(each)): each for each in candidates}
    decisions = {key: decide(each) for key, each in waiting.items()}
    written: list[Row] = []
    probe = 0
    while waiting:
        rows = list(_rows(waiting, decisions, probe))
        inserted = {row["id"] for row in (yield Query(queries.INSERT, _columns(rows)))}
        written += [row for row in rows if row["id"] in inserted]
        done = {_key(row) for row in rows if row["id"] in inserted}
        left = [row for row in rows if row["id"] not in inserted]
        if left:
            parameters = {"user_id": [row["user_id"] for row in left], "cause": [row["cause"] for row in left]}
            done |= {_key(row) for row in (yield Query(queries.KNOWN, parameters))}
        waiting = {key: each for key, each in waiting.items() if key not in done}
        probe += 1
    yield from _tell([row for row in written if decisions[_key(row)] == "accept"], encode)
    return len(written)


def _rows(
    candidates: dict[tuple[UUID, int], Candidate], decisions: dict[tuple[UUID, int], Decision], probe: int
) -> Iterator[Row]:
    """The rows at a probe, without those whose id an earlier one of the batch has."""
    now = datetime.now(UTC)
    taken: set[int] = set()
    for key, candidate in candidates.items():
        number = identifier(candidate, probe)
        if number in taken:
            continue
        taken.add(number)
        decision = decisions[key]
        yield {
            "id": number,
            "user_id": candidate.user_id,
            "type": candidate.type,
            "from_account_id": candidate.from_account_id,
            "post_id": candidate.post_id,
            "report_id": candidate.report_id,
            "moderation_action_id": candidate.moderation_action_id,
            "group_key": group_key(candidate.type, number, candidate.post_id, candidate.happened_at),
            "filtered": decision == "filter",
            "created_at": candidate.happened_at,
            "dismissed_at": now if decision == "drop" else None,
            "cause": key[1],
        }


def _tell(rows: Sequence[Row], encode: Encode) -> Effects[None]:
    """Replaces the news of earlier edits and writes the events."""
    if updates := [row["id"] for row in rows if row["type"] == "update"]:
        yield Query(queries.REPLACE_UPDATES, {"ids": updates})
    if rows:
        parameters = {
            "ids": [uuid4() for _ in rows],
            "keys": [str(row["user_id"]) for row in rows],
            "payloads": [encode("notification.dispatched", _event(row)) for row in rows],
        }
        yield Query(queries.INSERT_EVENTS, parameters)


def _event(row: Row) -> dict[str, Any]:
    return {
        "notification_id": str(row["id"]),
        "account_id": str(row["user_id"]),
        "type": row["type"],
        "from_account_id": str(row["from_account_id"]),
        "post_id": None if row["post_id"] is None else str(row["post_id"]),
        "created_at": row["created_at"],
        "group_key": row["group_key"],
    }


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


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _key(row: Row) -> tuple[UUID, int]:
    return row["user_id"], row["cause"]
