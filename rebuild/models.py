"""The read models that can be built again: their keys, the parts they are built of, and the checks that compare them.

Add one: its line in `rebuildable`. Its flow has to apply its batches with `Performer.each`, and its keys have to be
made by `readmodels.generations.key`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from audit.repairs import repair_followers, repair_recents
from audit.stores import Stores
from fanline.addresses import public_url
from fanline.settings import Settings
from readmodels import (
    active_users,
    aggregates,
    departures,
    engagement,
    followers,
    inbox,
    incremental,
    readiness,
    stored,
    timelines,
)
from readmodels.cards import ACCOUNT_CARD, STATUS_CARD
from readmodels.counts import ACCOUNT_COUNTS
from readmodels.effects import Query, command
from readmodels.flags import FLAGS
from readmodels.generations import using
from readmodels.poll_documents import POLL
from readmodels.relations import VIEWER

Subject = Literal["people", "posts", "polls"]

EDGES = "SELECT followee_id, follower_id FROM follows WHERE followee_id = ANY(%(ids)s::uuid[]) ORDER BY followee_id"


@dataclass(frozen=True, slots=True)
class Made:
    """The generation that is being built, and the one that serves."""

    model: str
    serving: int
    number: int


@dataclass(frozen=True, slots=True)
class Part:
    """One walk over people, posts or polls."""

    subjects: Subject
    build: Callable[[Stores, Made, Sequence[Any]], None]
    """Builds what belongs to some subjects; repeating it changes nothing. Flows write the generation meanwhile."""
    checks: tuple[str, ...]
    """The audit's read models that compare what it builds with the database."""
    subject_of: Callable[[Any], Any] = lambda compared: compared
    """Whose it is what the audit compares, if that is not the subject itself."""


@dataclass(frozen=True, slots=True)
class Rebuildable:
    """A read model that can be built again."""

    name: str
    prefixes: tuple[bytes, ...]
    parts: tuple[Part, ...]
    finish: Callable[[Stores, Made], None] = lambda stores, made: None
    """What has to be done last, before it may serve."""


def rebuildable(settings: Settings) -> dict[str, Rebuildable]:
    """Every read model in Redis that can be built again, by name."""
    models = (
        Rebuildable(
            "cards", (b"a", b"s", b"p"),
            (
                Part("people", _held((ACCOUNT_CARD,), settings), ("account_cards",)),
                Part("posts", _held((STATUS_CARD,), settings), ("status_cards",)),
                Part("polls", _held((POLL,), settings), ("poll_counts",)),
            ),
        ),
        Rebuildable("relations", (b"v",), (Part("people", _held((VIEWER,), settings), ("relations",)),)),
        Rebuildable(
            incremental.MODEL, tuple(kind.prefix for kind in engagement.KINDS),
            (
                Part("people", _held(_of(UUID), settings), ("account_counts", "flags")),
                Part("posts", _held(_of(int), settings), ("status_counts",)),
            ),
        ),
        Rebuildable(
            followers.MODEL, (b"f", b"r", b"celebrities", b"ready"),
            (Part("people", _followers, ("followers", "recents")),), _followers_are_ready,
        ),
        Rebuildable(timelines.MODEL, (b"t",), (Part("people", _warm, ("timelines_redis",)),)),
        Rebuildable(inbox.MODEL, (b"i",), (Part("people", _inboxes, ("inboxes",)),)),
        Rebuildable(
            aggregates.MODEL, (b"ts",), (Part("people", _series, ("aggregates",), lambda series: series.scope),),
            _series_of_the_instance,
        ),
    )  # fmt: skip
    return {model.name: model for model in models}


def _of(identifier: type) -> tuple[stored.Kind, ...]:
    of_people = (ACCOUNT_COUNTS, FLAGS)
    return tuple(kind for kind in engagement.KINDS if (kind in of_people) == (identifier is UUID))


def _held(kinds: Sequence[stored.Kind], settings: Settings) -> Callable[[Stores, Made, Sequence[Any]], None]:
    """Fills what the serving generation has: the rest is nobody's wish yet, and is filled when it is read."""
    url = public_url(settings)

    def build(stores: Stores, made: Made, ids: Sequence[Any]) -> None:
        references: list[stored.Reference] = [(kind, identifier) for kind in kinds for identifier in ids]
        with using(made.model, made.serving):
            there = stores.redis([command(kind.key(identifier), b"EXISTS") for kind, identifier in references])
        with using(made.model, made.number):
            stores.drive(stored.fill([each for each, exists in zip(references, there, strict=True) if exists], url))

    return build


def _followers(stores: Stores, made: Made, authors: Sequence[UUID]) -> None:
    """Writes followers and recent posts from the database, then looks again for what has changed meanwhile."""
    settings = stores.settings
    with using(made.model, made.serving):
        celebrities = set(stores.redis([command(followers.celebrities_key(), b"SMEMBERS")])[0])
    of_author: dict[UUID, list[bytes]] = {author: [] for author in authors}
    for row in stores.rows(Query(EDGES, {"ids": list(authors)})):
        of_author[row["followee_id"]].append(row["follower_id"].bytes)
    with using(made.model, made.number):
        for author, ids in of_author.items():
            is_celebrity = author.bytes in celebrities or len(ids) > settings.celebrity_threshold
            stores.redis(followers.restore(author, ids, settings.followers_chunk, is_celebrity))
        repair_recents(stores, authors)
        repair_followers(stores, authors)
        # Whoever left after the database was asked, and before this was written.
        stores.drive(departures.forget(authors))


def _followers_are_ready(stores: Stores, made: Made) -> None:
    """Says so by the mark of the serving generation, as warm timelines carry it.

    Readers pull whom they have pulled so far: whose posts were not pushed lately would else be missing for a while.
    """
    with using(made.model, made.serving):
        marks = stores.redis([readiness.read(key) for key in readiness.mark_keys()])
        pulled = stores.redis([command(followers.celebrities_key(), b"SMEMBERS")])[0]
    with using(made.model, made.number):
        for author in pulled:
            stores.redis([followers.add_celebrity(UUID(bytes=author))])
            stores.redis([followers.change_state(UUID(bytes=author), followers.PUSH, followers.PULL)])
        stores.redis(
            [command(key, b"SET", mark) for key, mark in zip(readiness.mark_keys(), marks, strict=True) if mark]
        )


def _inboxes(stores: Stores, made: Made, users: Sequence[UUID]) -> None:
    """Fills the inboxes of those who have one, for as long as they keep it."""
    with using(made.model, made.serving):
        seconds = stores.redis([command(inbox.inbox_key(user), b"TTL") for user in users])
    with using(made.model, made.number):
        for user, left in zip(users, seconds, strict=True):
            if left > 0:
                stores.drive(inbox.fill(user, stores.settings.notifications_cap, left))


def _series(stores: Stores, made: Made, scopes: Sequence[aggregates.Scope]) -> None:
    """Counts the time series that are there; those of accounts are, where somebody reads them."""
    now, kept = int(time.time()), _retention(stores.settings)
    wanted = [
        series
        for scope in scopes
        for resolution in aggregates.RESOLUTIONS.values()
        for series in aggregates.series_between(
            scope, resolution, aggregates.oldest_kept(resolution, now, kept), now + 1
        )
    ]
    with using(made.model, made.serving):
        there = stores.redis([aggregates.is_complete(series) for series in wanted])
    with using(made.model, made.number):
        done = stores.redis([aggregates.is_complete(series) for series in wanted])
        for series, serves, is_done in zip(wanted, there, done, strict=True):
            if serves == aggregates.COMPLETE and is_done != aggregates.COMPLETE:
                # A build that was interrupted is in the way until it expires.
                stores.redis([command(series.key(), b"DEL")])
                stores.drive(aggregates.build(series, now, kept))


def _series_of_the_instance(stores: Stores, made: Made) -> None:
    """Counts the instance's series and the people of each day."""
    now = int(time.time())
    _series(stores, made, [aggregates.INSTANCE])
    with using(made.model, made.number):
        stores.drive(active_users.fill(now))


def _retention(settings: Settings) -> aggregates.Retention:
    days = settings.aggregates_minutes_days, settings.aggregates_hours_days, settings.aggregates_days_days
    return aggregates.retention(*days)


def _warm(stores: Stores, made: Made, viewers: Sequence[UUID]) -> None:
    """Builds the timelines that are warm, for as long as they stay so."""
    settings = stores.settings
    generation = stores.drive(readiness.generation())
    if generation is None:
        return
    with using(made.model, made.serving):
        seconds = stores.redis([command(timelines.timeline_key(viewer), b"TTL") for viewer in viewers])
    with using(made.model, made.number):
        for viewer, left in zip(viewers, seconds, strict=True):
            if left > 0:
                stores.drive(timelines.build(viewer, generation, settings.timeline_cap, left))
