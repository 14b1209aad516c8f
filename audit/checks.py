"""Holds what Redis has against the database, one function a read model. None stands for "nothing there to check".

What is absent by design is not checked: the timelines of people who have not read for long, and documents that nobody
has asked for. What a read makes of it all is checked over REST (audit/rest.py).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from audit.compare import Difference, compare_documents, compare_sets
from audit.stores import Stores
from readmodels import documents, followers, readiness, recents, timelines
from readmodels.documents import Kind, Reference
from readmodels.effects import Command, Query, command
from readmodels.entries import NO_GENERATION, complete_above, newest_first, pack_entry

Check = Callable[[Stores, Sequence[Any]], Mapping[Any, Difference | None]]

EVERYTHING = 1_000_000
"""A limit that no timeline reaches."""

AUTHORS_OF = "SELECT id, author_id FROM posts WHERE id = ANY(%(ids)s)"


def check_timelines(stores: Stores, viewers: Sequence[UUID]) -> dict[UUID, Difference | None]:
    """Every post that the oracle shows above a warm list's floor is in the list, celebrities' posts apart.

    Order, duplicates and posts that a rule hides are settled at read and no fault here.
    """
    generation = stores.drive(readiness.generation())
    if generation is None:
        return dict.fromkeys(viewers)
    celebrities = {
        UUID(bytes=member) for member in stores.redis([command(followers.celebrities_key(), b"SMEMBERS")])[0]
    }
    replies = stores.redis([part for viewer in viewers for part in timelines.read(viewer)])
    found: dict[UUID, Difference | None] = {}
    for number, viewer in enumerate(viewers):
        header, items = replies[2 * number], replies[2 * number + 1]
        floor = complete_above(header[0], generation) if header else None
        if floor is None:
            found[viewer] = None
            continue
        expected = stores.rows(timelines.home_query(viewer, EVERYTHING, since_id=floor))
        if celebrities and expected:
            authors = stores.rows(Query(AUTHORS_OF, {"ids": [row["id"] for row in expected]}))
            pulled = {row["id"] for row in authors if row["author_id"] in celebrities - {viewer}}
            expected = [row for row in expected if row["id"] not in pulled]
        wanted = {pack_entry(row["id"], row["repost_of_id"]) for row in expected}
        there = {entry.pack() for entry in newest_first(items)}
        found[viewer] = Difference(missing=len(wanted - there))
    return found


def check_recents(stores: Stores, authors: Sequence[UUID]) -> dict[UUID, Difference | None]:
    """An author's recent list has every post above its floor that others may see, deleted ones apart."""
    lists = stores.redis([recents.read(author) for author in authors])
    rows = stores.rows(Query(recents.NEWEST_BY_AUTHOR, {"authors": list(authors), "limit": EVERYTHING}))
    posts: dict[UUID, list[tuple[int, bytes]]] = {author: [] for author in authors}
    for row in rows:
        posts[row["author_id"]].append((row["id"], pack_entry(row["id"], row["repost_of_id"])))
    found: dict[UUID, Difference | None] = {}
    for author, items in zip(authors, lists, strict=True):
        floor = complete_above(items[0], NO_GENERATION) if items else 0
        there = {entry.pack() for entry in newest_first(items)}
        wanted = {entry for post_id, entry in posts[author] if floor is None or post_id > floor}
        found[author] = Difference(missing=len(wanted - there))
    return found


def check_followers(stores: Stores, authors: Sequence[UUID]) -> dict[UUID, Difference | None]:
    """An author's chunks hold exactly the followers that the database has, each once."""
    numbers = stores.redis([command(followers.facts_key(author), b"HGET", b"chunks") for author in authors])
    # An author's first chunk is there before it is counted.
    chunks = {author: int(number or 1) for author, number in zip(authors, numbers, strict=True)}
    replies = iter(
        stores.redis([followers.read_chunk(author, index) for author in authors for index in range(chunks[author])])
    )
    expected: dict[UUID, list[bytes]] = {author: [] for author in authors}
    for row in stores.rows(Query(followers.EDGES_OF_AUTHORS, {"authors": list(authors)})):
        expected[row["followee_id"]].append(row["follower_id"].bytes)
    return {
        author: compare_sets(
            expected[author],
            [follower for _ in range(chunks[author]) for follower in followers.split_ids(next(replies)[0])],
        )
        for author in authors
    }


def check_documents(kinds: Sequence[Kind], public_url: str) -> Check:
    """The check that documents of these kinds say what the database says now; subjects are ids."""

    def check(stores: Stores, subjects: Sequence[Any]) -> dict[Any, Difference | None]:
        references: list[Reference] = [(kind, subject) for kind in kinds for subject in subjects]
        reads: list[Command] = [documents.read(reference) for reference in references]
        actual = dict(zip(references, map(documents.body, stores.redis(reads)), strict=True))
        there = [reference for reference in references if actual[reference] is not None]
        expected = stores.drive(documents.load(there, public_url))
        found: dict[Any, Difference | None] = dict.fromkeys(subjects)
        for reference in there:
            difference = compare_documents(expected[reference], actual[reference] or b"")
            found[reference[1]] = _sum(found[reference[1]], difference)
        return found

    return check


def _sum(one: Difference | None, other: Difference) -> Difference:
    if one is None:
        return other
    return Difference(missing=one.missing + other.missing, extra=one.extra + other.extra)
