"""The audit: every read model against its oracle, after the pipeline has caught up."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from api.context import public_url_of
from audit.compare import Difference, Tally
from audit.models import Check, Subjects, models
from audit.rest import HomeReader
from audit.stores import Stores
from audit.visitors import admitted
from fanline.errors import ConfigurationError
from fanline.settings import Settings
from readmodels.effects import Query

DEPTH = 1_000
"""Entries of a timeline that are compared: more than Redis keeps, so that the seam to the database is read, too."""

# Somebody may write between the look at the oracle and the look at the read model: what differs is looked at
# again once the pipeline has passed that moment. A real difference stays through all rounds.
ROUNDS = 4
# Few enough for one pipelined batch and one query each.
BATCH = 500

PEOPLE = """
SELECT id FROM users
WHERE left(lower(username), char_length(%(prefix)s::text)) = %(prefix)s ORDER BY random() LIMIT %(limit)s
"""
POSTS = """
SELECT p.id FROM posts p JOIN users u ON u.id = p.author_id
WHERE left(lower(u.username), char_length(%(prefix)s::text)) = %(prefix)s ORDER BY p.id DESC LIMIT %(limit)s
"""
ALL = 2**31 - 1

Wait = Callable[[], Awaitable[None]]
"""Returns when everything committed before the call has reached the read models."""

Progress = Callable[[str, int, int], None]
"""Is told the read model, how many subjects are done, and of how many."""


def choose(stores: Stores, sample: int | None, prefix: str = "") -> Subjects:
    """`sample` people at random and as many of the newest posts; all of both without a number.

    With a `prefix`, only people whose usernames begin with it, and their posts.
    """
    if sample is not None and sample < 1:
        raise ConfigurationError("The sample must have at least 1 timeline.")
    chosen = {"limit": sample or ALL, "prefix": prefix.lower()}
    people = [row["id"] for row in stores.rows(Query(PEOPLE, chosen))]
    return Subjects(people, [row["id"] for row in stores.rows(Query(POSTS, chosen))])


async def audit(
    settings: Settings,
    stores: Stores,
    subjects: Subjects,
    wait: Wait,
    *,
    depth: int = DEPTH,
    progress: Progress = lambda model, done, total: None,
) -> dict[str, Tally]:
    """Compare every read model; a tally for each, by name. Writes may go on meanwhile.

    Raises `DependencyUnavailable` when a server does not answer and whatever `wait` raises.
    """
    url = public_url_of(settings)
    await wait()
    report: dict[str, Tally] = {}
    with admitted(stores.connection, subjects.people, "Fanline audit", url) as tokens:
        async with HomeReader(url, tokens, depth) as reader:
            # Redis comes before REST, which would warm what is cold.
            for model in models(settings):
                those = await asyncio.to_thread(model.subjects, stores, subjects)
                report[model.name] = await rounds(model.name, in_thread(model.check, stores), those, wait, progress)

            async def over_rest(viewers: Sequence[Any]) -> Mapping[Any, Difference | None]:
                return await reader.check(stores, viewers)

            timelines = await rounds("timelines", over_rest, subjects.people, wait, progress)
    return {"timelines": timelines, **report}


AsyncCheck = Callable[[Sequence[Any]], Awaitable[Mapping[Any, Difference | None]]]


def in_thread(check: Check, stores: Stores) -> AsyncCheck:
    """A check that leaves the event loop alone."""

    async def run(subjects: Sequence[Any]) -> Mapping[Any, Difference | None]:
        return await asyncio.to_thread(check, stores, subjects)

    return run


async def rounds(name: str, check: AsyncCheck, subjects: Sequence[Any], wait: Wait, progress: Progress) -> Tally:
    """Checks all subjects, and those that differ again after the pipeline has caught up; what differs all the time."""
    found: dict[Any, Difference | None] = {}
    for start in range(0, len(subjects), BATCH):
        found.update(await check(subjects[start : start + BATCH]))
        progress(name, len(found), len(subjects))
    for _ in range(ROUNDS - 1):
        suspects = [subject for subject, difference in found.items() if difference]
        if not suspects:
            break
        await wait()
        for start in range(0, len(suspects), BATCH):
            found.update(await check(suspects[start : start + BATCH]))
    tally = Tally()
    for subject, difference in found.items():
        if difference is not None:
            tally.add(subject, difference)
    return tally
