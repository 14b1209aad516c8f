"""The steps of a rebuild: begin, build, compare, switch, and then roll back or free.

    begin     a new generation is named; once every flow has passed that moment, all that changes is written to it too
    build     people and posts are walked through by id and their keys filled from the database
    compare   both generations are held against the database
    switch    one write makes the new generation the one that readers use; flows go on writing both
    free      flows write the serving generation only, and the other's keys are deleted

Progress is noted after each page: whoever calls `build` again goes on from there. Everything that a page does may be
repeated, and whatever flows write meanwhile stands, by the protocols that the models' own readers fill with.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from audit.compare import Tally
from audit.models import Subjects, models
from audit.run import Progress, Wait, in_thread, rounds
from audit.stores import Stores
from fanline.errors import FanlineError
from readmodels import generations
from readmodels.effects import Query, command
from readmodels.generations import using
from rebuild.models import Made, Rebuildable, Subject
from rebuild.state import BUILD, COMPARE, KEPT, State, load, require_step

PAGE = 200
"""Subjects a page: little is done twice after an interruption, and Redis' pipeline is full."""

PEOPLE = "SELECT id FROM users WHERE id > %(after)s::uuid ORDER BY id LIMIT %(limit)s"
POSTS = "SELECT id FROM posts WHERE id > %(after)s::bigint ORDER BY id LIMIT %(limit)s"
COUNTS = {"people": "SELECT count(*) AS number FROM users", "posts": "SELECT count(*) AS number FROM posts"}
FIRST: dict[Subject, str] = {"people": str(UUID(int=0)), "posts": "0"}

Say = Callable[[State], None]
"""Is told the state after each page."""


class RebuildDiffers(FanlineError):
    """The new generation does not equal the database; nothing was switched."""


@dataclass(slots=True)
class Compared:
    """What both generations are like, by the audit's names."""

    serving: dict[str, Tally]
    made: dict[str, Tally]

    @property
    def is_equal(self) -> bool:
        """Whether the new generation equals the database."""
        return all(tally.equal == tally.checked for tally in self.made.values())


async def begin(stores: Stores, model: Rebuildable, wait: Wait) -> State:
    """Name a new generation, unless one is being built already; returns when flows write it."""
    state = load(stores, model.name)
    if state.written is None:
        total = sum(_count(stores, part.subjects) for part in model.parts)
        number = stores.redis([generations.next_number(model.name)])[0]
        stores.redis([generations.forget(model.name, "cursor", "part", "done", "seconds", "free_after")])
        stores.redis([generations.note(model.name, written=number, step=BUILD, total=total)])
        state = load(stores, model.name)
    else:
        require_step(state, BUILD, "build")
    await wait()
    return state


def build(stores: Stores, model: Rebuildable, say: Say) -> State:
    """Fill the generation that `begin` has named, from where an earlier call was interrupted."""
    state = load(stores, model.name)
    number = require_step(state, BUILD, "build")
    made = Made(model.name, state.serving, number)
    done, spent, started = state.done, state.seconds, time.monotonic()
    for position in range(state.part, len(model.parts)):
        part = model.parts[position]
        cursor = state.cursor if position == state.part and state.cursor else FIRST[part.subjects]
        while ids := _page(stores, part.subjects, cursor):
            part.build(stores, made, ids)
            cursor, done = str(ids[-1]), done + len(ids)
            seconds = f"{spent + time.monotonic() - started:.3f}"
            noted = generations.note(model.name, part=position, cursor=cursor, done=done, seconds=seconds)
            stores.redis([noted])
            say(load(stores, model.name))
    model.finish(stores, made)
    stores.redis([generations.note(model.name, step=COMPARE)])
    return load(stores, model.name)


async def compare(
    stores: Stores, model: Rebuildable, subjects: Subjects, wait: Wait, progress: Progress = lambda *_: None
) -> Compared:
    """Hold both generations against the database."""
    state = load(stores, model.name)
    number = require_step(state, COMPARE, "compare")
    await wait()
    found = []
    for generation in (state.serving, number):
        tallies: dict[str, Tally] = {}
        with using(model.name, generation):
            for each in models(stores.settings):
                if each.name in model.checks:
                    those = each.subjects(stores, subjects)
                    name = f"{each.name}, generation {generation}"
                    tallies[each.name] = await rounds(name, in_thread(each.check, stores), those, wait, progress)
        found.append(tallies)
    return Compared(*found)


def switch(stores: Stores, model: Rebuildable, keep_seconds: float) -> State:
    """Make readers use the new generation; the old one is kept up to date for a rollback."""
    state = load(stores, model.name)
    number = require_step(state, COMPARE, "switch to")
    free_after = f"{time.time() + keep_seconds:.0f}"
    stores.redis(
        [generations.note(model.name, serving=number, written=state.serving, step=KEPT, free_after=free_after)]
    )
    return load(stores, model.name)


def roll_back(stores: Stores, model: Rebuildable) -> State:
    """Make readers use the generation from before the switch; the other one is kept in its place."""
    state = load(stores, model.name)
    kept = require_step(state, KEPT, "roll back")
    stores.redis([generations.note(model.name, serving=kept, written=state.serving)])
    return load(stores, model.name)


async def free(stores: Stores, model: Rebuildable, wait: Wait) -> int:
    """Stop writing the generation that does not serve and delete its keys; how many there were.

    An unfinished rebuild is given up by this.
    """
    state = load(stores, model.name)
    if state.written is None:
        return 0
    stores.redis([generations.forget(model.name, "written", "step", "part", "cursor", "done", "total", "free_after")])
    # What flows have begun for it must be over, or it would come back.
    await wait()
    return await asyncio.to_thread(_delete, stores, model, state.written)


def _delete(stores: Stores, model: Rebuildable, generation: int) -> int:
    deleted = 0
    for prefix in model.prefixes:
        for keys in stores.scan(generations.pattern(prefix, generation)):
            deleted += sum(stores.redis([command(key, b"UNLINK") for key in keys]))
    return deleted


def _count(stores: Stores, subjects: Subject) -> int:
    return int(stores.rows(Query(COUNTS[subjects], {}))[0]["number"])


def _page(stores: Stores, subjects: Subject, after: str) -> Sequence[Any]:
    query = PEOPLE if subjects == "people" else POSTS
    value: Any = UUID(after) if subjects == "people" else int(after)
    return [row["id"] for row in stores.rows(Query(query, {"after": value, "limit": PAGE}))]
