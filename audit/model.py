"""What the audit knows of a read model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from audit.checks import Check
from audit.repairs import Repair
from audit.stores import Stores


@dataclass(frozen=True, slots=True)
class Subjects:
    """The people and posts whose read models are compared."""

    people: Sequence[UUID]
    posts: Sequence[int]


@dataclass(frozen=True, slots=True)
class Model:
    """A read model: its name, what of it is compared, how, and what mends a subject that differs."""

    name: str
    subjects: Callable[[Stores, Subjects], Sequence[Any]]
    """What to compare, given the people and posts that were chosen: `people`, `posts`, or what follows from them."""
    check: Check
    """The difference of each subject from the oracle; None: there is nothing of it to compare."""
    repair: Repair
    """Makes the subjects equal to the oracle. Safe while the flows write: it never undoes a newer change."""
    flow: str
    """The flow that writes it: where the audit that always runs looks for the cause of a difference."""


def people(_stores: Stores, subjects: Subjects) -> Sequence[UUID]:
    """A model with a subject a person."""
    return subjects.people


def posts(_stores: Stores, subjects: Subjects) -> Sequence[int]:
    """A model with a subject a post."""
    return subjects.posts
