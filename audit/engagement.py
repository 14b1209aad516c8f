"""Holds counts, flags and polls against the database. What nobody has asked for yet is not there and not compared."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from audit.checks import Check
from audit.compare import Difference, compare_documents, compare_sets
from audit.repairs import Repair
from audit.stores import Stores
from readmodels import incremental
from readmodels.effects import Query
from readmodels.flags import FLAGS, sets
from readmodels.incremental import Kind, Reference

POLLS_OF_POSTS = "SELECT id FROM polls WHERE post_id = ANY(%(ids)s::bigint[])"


def check_counts(kind: Kind) -> Check:
    """The check that counters say what the database counts now; subjects are ids."""

    def check(stores: Stores, subjects: Sequence[Any]) -> dict[Any, Difference | None]:
        actual, expected = _both(stores, kind, subjects)
        return {
            subject: None if actual[subject] is None else compare_documents(expected[subject], actual[subject] or b"")
            for subject in subjects
        }

    return check


def check_flags(stores: Stores, viewers: Sequence[UUID]) -> dict[UUID, Difference | None]:
    """Above the horizons the sets have exactly the ids that the database has."""
    actual, expected = _both(stores, FLAGS, viewers)
    found: dict[UUID, Difference | None] = dict.fromkeys(viewers)
    for viewer in viewers:
        payload = actual[viewer]
        if payload is None:
            continue
        total = Difference()
        wanted, there = sets(expected[viewer]), sets(payload)
        if bool(wanted) != bool(there):
            total = Difference(missing=int(bool(wanted)), extra=int(bool(there)))
        for (wanted_horizon, wanted_ids), (horizon, ids) in zip(wanted, there, strict=False):
            above = max(wanted_horizon, horizon)
            difference = compare_sets([each for each in wanted_ids if each > above], [e for e in ids if e > above])
            total = Difference(
                missing=total.missing + difference.missing,
                extra=total.extra + difference.extra,
                duplicate=total.duplicate + difference.duplicate,
            )
        found[viewer] = total
    return found


def repair_values(*kinds: Kind) -> Repair:
    """Drops values of these kinds and loads them from the database; a change that comes meanwhile is in the load."""

    def repair(stores: Stores, subjects: Sequence[Any]) -> None:
        references: list[Reference] = [(kind, subject) for kind in kinds for subject in subjects]
        stores.redis([incremental.forget(kind.key(subject)) for kind, subject in references])
        stores.drive(incremental.fill(references))

    return repair


def polls_of(stores: Stores, post_ids: Sequence[int]) -> list[int]:
    """The polls of some posts."""
    return [row["id"] for row in stores.rows(Query(POLLS_OF_POSTS, {"ids": list(post_ids)}))]


def _both(stores: Stores, kind: Kind, subjects: Sequence[Any]) -> tuple[dict[Any, bytes | None], dict[Any, bytes]]:
    """What Redis has, None where nothing is kept, and what the database says of the rest."""
    references: list[Reference] = [(kind, subject) for subject in subjects]
    replies = stores.redis([incremental.read(reference) for reference in references])
    actual = {reference[1]: incremental.body(reply) for reference, reply in zip(references, replies, strict=True)}
    there = [reference for reference in references if actual[reference[1]] is not None]
    expected = stores.drive(incremental.load(there))
    return actual, {reference[1]: payload for reference, payload in expected.items()}
