"""The steps of a rebuild: begin, build, compare, switch, and then roll back or free.

    begin     a new generation is named; once every flow has passed that moment, all that changes is written to it too
    build     people, posts and polls are walked through by id and their keys filled from the database
    compare   both generations are held against the database, and the new one against the one that serves
    switch    one write makes the new generation the one that readers use; flows go on writing both
    free      flows write the serving generation only, and the other's keys are deleted

Progress is noted after each page: whoever calls `build` again goes on from there. Everything that a page does may be
repeated, and whatever flows write meanwhile stands, by the protocols that the models' own readers fill with.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from audit.compare import Difference, Tally
from audit.models import Model, Subjects, models
from audit.run import ROUNDS, Progress, Wait, in_thread, rounds
from audit.stores import Stores
from fanline.errors import FanlineError
from readmodels import generations
from readmodels.effects import Query, command
from readmodels.generations import using
from rebuild.models import Made, Part, Rebuildable, Subject
from rebuild.state import BUILD, COMPARE, KEPT, State, load, require_step

PAGE = 200
"""Subjects a page: little is done twice after an interruption, and Redis' pipeline is full."""

PEOPLE = "SELECT id FROM users WHERE id > %(after)s::uuid ORDER BY id LIMIT %(limit)s"
POSTS = "SELECT id FROM posts WHERE id > %(after)s::bigint ORDER BY id LIMIT %(limit)s"
POLLS = "SELECT id FROM polls WHERE id > %(after)s::bigint ORDER BY id LIMIT %(limit)s"
PAGES: dict[Subject, str] = {"people": PEOPLE, "posts": POSTS, "polls": POLLS}
COUNTS: dict[Subject, str] = {
    "people": "SELECT count(*) AS number FROM users",
    "posts": "SELECT count(*) AS number FROM posts",
    "polls": "SELECT count(*) AS number FROM polls",
}
FIRST: dict[Subject, str] = {"people": str(UUID(int=0)), "posts": "0", "polls": "0"}

Say = Callable[[State], None]
"""Is told the state after each page."""


class RebuildDiffers(FanlineError):
    """The new generation does not equal the database; nothing was switched."""


@dataclass(slots=True)
class Compared:
    """What both generations are like, by the audit's names."""

    serving: dict[str, Tally] = field(default_factory=dict)
    made: dict[str, Tally] = field(default_factory=dict)
    lacking: dict[str, int] = field(default_factory=dict)
    """How much the serving generation has and the new one has not."""

    @property
    def is_equal(self) -> bool:
        """Whether the new generation equals the database, and has what the serving one has."""
        return all(tally.equal == tally.checked for tally in self.made.values()) and not any(self.lacking.values())


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
    # Not if it was given up meanwhile.
    require_step(load(stores, model.name), BUILD, "build")
    stores.redis([generations.note(model.name, step=COMPARE)])
    return load(stores, model.name)


async def compare(
    stores: Stores, model: Rebuildable, subjects: Subjects, wait: Wait, progress: Progress = lambda *_: None
) -> Compared:
    """Hold both generations against the database, and the new one against the one that serves.

    Readers fill the serving one with what they miss, so what it has got since the walk is built now.
    """
    state = load(stores, model.name)
    made = Made(model.name, state.serving, require_step(state, COMPARE, "compare"))
    await wait()
    compared = Compared()
    for part in model.parts:
        for each in (each for each in models(stores.settings) if each.name in part.checks):
            those = await asyncio.to_thread(each.subjects, stores, subjects)

            async def look(generation: int, some: Sequence[Any], each: Model = each) -> tuple[Tally, set[Any]]:
                with using(model.name, generation):
                    return await _look(stores, each, f"{each.name}, generation {generation}", some, wait, progress)

            compared.serving[each.name], held = await look(made.serving, those)
            compared.made[each.name], found = await look(made.number, those)
            for _ in range(ROUNDS):
                if held <= found:
                    break
                await asyncio.to_thread(_build_again, stores, made, part, held - found)
                await wait()
                # What has expired or gone meanwhile need not be there.
                _, held = await look(made.serving, list(held - found))
                compared.made[each.name], found = await look(made.number, those)
            compared.lacking[each.name] = len(held - found)
    return compared


async def _look(
    stores: Stores, each: Model, name: str, subjects: Sequence[Any], wait: Wait, progress: Progress
) -> tuple[Tally, set[Any]]:
    """How many subjects equal the database, and which are there at all."""
    there: set[Any] = set()
    check = in_thread(each.check, stores)

    async def noting(some: Sequence[Any]) -> Mapping[Any, Difference | None]:
        found = await check(some)
        there.difference_update(some)
        there.update(subject for subject, difference in found.items() if difference is not None)
        return found

    return await rounds(name, noting, subjects, wait, progress), there


def _build_again(stores: Stores, made: Made, part: Part, compared: Collection[Any]) -> None:
    ids = list(dict.fromkeys(map(part.subject_of, compared)))
    for start in range(0, len(ids), PAGE):
        part.build(stores, made, ids[start : start + PAGE])


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


async def free(stores: Stores, those: Collection[Rebuildable], wait: Wait) -> dict[str, int]:
    """Stop writing the generations that do not serve and delete their keys; how many there were, by model.

    Unfinished rebuilds are given up by this.
    """
    states = [(model, load(stores, model.name).written) for model in those]
    going = [(model, written) for model, written in states if written is not None]
    for model, _ in going:
        stores.redis(
            [generations.forget(model.name, "written", "step", "part", "cursor", "done", "total", "free_after")]
        )
    if going:
        # What flows have begun for them must be over, or it would come back.
        await wait()
    return {model.name: await asyncio.to_thread(_delete, stores, model, written) for model, written in going}


def _delete(stores: Stores, model: Rebuildable, generation: int) -> int:
    deleted = 0
    for prefix in model.prefixes:
        for keys in stores.scan(generations.pattern(prefix, generation)):
            deleted += sum(stores.redis([command(key, b"UNLINK") for key in keys]))
    return deleted


def _count(stores: Stores, subjects: Subject) -> int:
    return int(stores.rows(Query(COUNTS[subjects], {}))[0]["number"])


def _page(stores: Stores, subjects: Subject, after: str) -> Sequence[Any]:
    value: Any = UUID(after) if subjects == "people" else int(after)
    return [row["id"] for row in stores.rows(Query(PAGES[subjects], {"after": value, "limit": PAGE}))]
