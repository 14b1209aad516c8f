"""Mends what differs from the database, one function a read model.

Flows go on writing meanwhile, so none of these may undo a newer change: documents go by their tokens, lists are merged
or built again behind their markers, and followers are looked up again after they were written.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

from audit.stores import Stores
from fanline.settings import Settings
from readmodels import documents, followers, readiness, recents, timelines
from readmodels.documents import Kind, Reference
from readmodels.effects import Query, command
from readmodels.followers import Edge
from readmodels.following import Limits, apply_edges

Repair = Callable[[Stores, Sequence[Any]], None]

DAY_SECONDS = 86_400


def repair_timelines(stores: Stores, viewers: Sequence[UUID]) -> None:
    """Drops the lists and builds them again from the database; nothing while followers are being built."""
    settings = stores.settings
    generation = stores.drive(readiness.generation())
    if generation is None:
        return
    for viewer in viewers:
        stores.redis([command(timelines.timeline_key(viewer), b"DEL")])
        warm_seconds = settings.timeline_warm_days * DAY_SECONDS
        stores.drive(timelines.build(viewer, generation, settings.timeline_cap, warm_seconds))


def repair_recents(stores: Stores, authors: Sequence[UUID]) -> None:
    """Merges the database's newest posts into the lists."""
    cap = stores.settings.timeline_cap
    rows = stores.rows(Query(recents.NEWEST_BY_AUTHOR, {"authors": list(authors), "limit": cap + 1}))
    of_author: dict[UUID, list[Any]] = {author: [] for author in authors}
    for row in rows:
        of_author[row["author_id"]].append(row)
    stores.redis([recents.restore(author, found, cap) for author, found in of_author.items()])


def repair_followers(stores: Stores, authors: Sequence[UUID]) -> None:
    """Takes out of the chunks what does not belong there and applies the follows that are missing."""
    for author in authors:
        _repair_followers(stores, author, limits_of(stores.settings))


def repair_documents(kinds: Sequence[Kind], public_url: str) -> Repair:
    """The repair of documents of these kinds: what is there is dropped and written again."""

    def repair(stores: Stores, subjects: Sequence[Any]) -> None:
        references: list[Reference] = [(kind, subject) for kind in kinds for subject in subjects]
        # Dropped first, as a damaged token may claim to be newer than any.
        dropped = stores.redis([command(kind.key(subject), b"DEL") for kind, subject in references])
        there = [reference for reference, was_there in zip(references, dropped, strict=True) if was_there]
        stores.drive(documents.fill(there, public_url))

    return repair


def limits_of(settings: Settings) -> Limits:
    """The settings that timelines and followers are kept by."""
    return Limits(
        timeline_cap=settings.timeline_cap,
        timeline_slack=settings.timeline_slack,
        followers_chunk=settings.followers_chunk,
        celebrity_threshold=settings.celebrity_threshold,
    )


def _repair_followers(stores: Stores, author: UUID, limits: Limits) -> None:
    held = list(_held(stores, author))
    times = Counter(follower for _, follower in held)
    wanted = _wanted(stores, author)
    wrong = {follower for follower, number in times.items() if follower not in wanted or number > 1}
    stores.redis([followers.drop(author, index, follower) for index, follower in held if follower in wrong])
    # What was written, to be looked up again: it may have changed after the database was asked.
    written = dict.fromkeys(wrong, False)
    while True:
        stale = {follower: follower in wanted for follower in {*written, *(wanted - times.keys())}}
        stale = {follower: follows for follower, follows in stale.items() if written.get(follower) != follows}
        if not stale:
            return
        edges = [Edge(UUID(bytes=follower), author, follows, 0, followers.NOW) for follower, follows in stale.items()]
        stores.drive(apply_edges(edges, limits))
        written |= stale
        wanted = _wanted(stores, author)


def _held(stores: Stores, author: UUID) -> Iterator[tuple[int, bytes]]:
    index, chunks = 0, 1
    while index < chunks:
        ids, chunks = stores.redis([followers.read_chunk(author, index)])[0]
        for follower in followers.split_ids(ids):
            yield index, follower
        index += 1


def _wanted(stores: Stores, author: UUID) -> set[bytes]:
    return {row["follower_id"].bytes for row in stores.rows(Query(followers.ORACLE, {"author": author}))}
