"""Whether the people whom something is kept for are still there."""

from collections.abc import Collection
from uuid import UUID

from readmodels.effects import Effects, Query

PRESENT = "SELECT id FROM users WHERE id = ANY(%(ids)s::uuid[])"


def gone(people: Collection[UUID]) -> Effects[list[UUID]]:
    """Those among some people whose accounts the database does not have."""
    if not people:
        return []
    present = {row["id"] for row in (yield Query(PRESENT, {"ids": list(people)}))}
    return [person for person in people if person not in present]
