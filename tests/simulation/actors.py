"""The processes of the pipeline as generators that stop before every effect, so that a seed decides who goes next."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar
from uuid import UUID

from readmodels import departures, documents, following, readiness, spreading, timelines
from readmodels.effects import Effects, Query, Redis
from readmodels.entries import pack_entry
from readmodels.fan_out import FanOutQueue
from readmodels.followers import Edge
from readmodels.following import Limits
from readmodels.relations import VIEWER
from tests.simulation.world import PARTITIONS, Database, LogRecord

LIMITS = Limits(timeline_cap=12, timeline_slack=4, followers_chunk=3, celebrity_threshold=5)
URL = "http://localhost"

Execute = Callable[[Redis], list[Any]]
Result = TypeVar("Result")
Steps = Generator[None, None, Result]


class Machine:
    """Performs effects one at a time, giving the turn away before each."""

    def __init__(self, database: Database, redis: Execute) -> None:
        self.database = database
        self.redis = redis

    def run(self, effects: Effects[Result]) -> Steps[Result]:
        answer: Any = None
        while True:
            try:
                wanted = effects.send(answer)
            except StopIteration as stop:
                result: Result = stop.value
                return result
            yield
            answer = self.redis(wanted) if isinstance(wanted, Redis) else self.database.answer(_query(wanted))


def _query(wanted: object) -> Query:
    assert isinstance(wanted, Query)
    return wanted


class Flow(ABC):
    """A flow's place in the log: what it has read, and up to where it has said that all is done."""

    def __init__(self, machine: Machine, dice: random.Random, topics: tuple[str, ...]) -> None:
        self.machine = machine
        self.dice = dice
        self.committed = {(topic, partition): 0 for topic in topics for partition in range(PARTITIONS)}
        self.position = dict(self.committed)
        self.steps: Iterator[None] = iter(())

    def lag(self) -> int:
        log = self.machine.database.log
        return sum(len(log[part]) - offset for part, offset in self.committed.items())

    def step(self) -> None:
        """One effect, or the start of the next batch."""
        try:
            next(self.steps)
        except StopIteration:
            self.steps = self.turn()

    def crash(self) -> None:
        """kill -9: what was under way is gone; the flow starts again from what it had committed, or a little before."""
        self.steps = iter(())
        self.position = {part: max(0, offset - self.dice.randrange(3)) for part, offset in self.committed.items()}
        self.committed = dict(self.position)

    def take(self) -> tuple[tuple[str, int], list[LogRecord]]:
        part = self.dice.choice(list(self.position))
        start = self.position[part]
        batch = self.machine.database.log[part][start : start + self.dice.randint(1, 4)]
        self.position[part] += len(batch)
        if batch and self.dice.random() < 0.1:
            batch += batch
        return part, batch

    @abstractmethod
    def turn(self) -> Steps[None]:
        """Takes a batch and works on it."""


class FollowersFlow(Flow):
    def turn(self) -> Steps[None]:
        if (yield from self.machine.run(readiness.generation())) is None:
            limits = LIMITS
            yield from self.machine.run(
                readiness.rebuild(limits.followers_chunk, limits.celebrity_threshold, limits.timeline_cap)
            )
        part, batch = self.take()
        topic, _ = part
        departed = [record.row[0] for record in batch] if topic == "users" else []
        ordered = self.machine.database.changefeed is None
        edges = [
            Edge(*record.row, record.operation != "d", record.partition, record.position, ordered)
            for record in batch
            if not departed
        ]
        yield from self.machine.run(following.apply_edges(edges, LIMITS, departed))
        self.committed[part] = self.position[part]


class TimelinesFlow(Flow):
    def __init__(self, machine: Machine, dice: random.Random) -> None:
        super().__init__(machine, dice, ("posts",))
        self.queue: FanOutQueue[tuple[str, int]] = FanOutQueue()

    def crash(self) -> None:
        super().crash()
        self.queue = FanOutQueue()

    def turn(self) -> Steps[None]:
        part, batch = self.take()
        posts = [
            spreading.Post(r.row.author, pack_entry(r.row.id, r.row.repost_of), r.row.visibility == "direct", 0)
            for r in batch
            if r.operation == "c"
        ]
        for fan_out in (yield from self.machine.run(spreading.begin(posts, LIMITS))):
            self.queue.add(part, fan_out)
        yield from self.machine.run(departures.forget_recents({r.row.author for r in batch if r.operation == "d"}))
        self.queue.mark(part, (part, self.position[part]))
        for chunk in (yield from self.machine.run(spreading.advance(self.queue, self.dice.randint(1, 3)))):
            targets = [UUID(bytes=chunk.followers[at : at + 16]) for at in range(0, len(chunk.followers), 16)]
            pushes = Redis([timelines.push(target, *(each.entry for each in chunk.fan_outs)) for target in targets])
            yield
            lengths = self.machine.redis(pushes)
            for target, length in zip(targets, lengths, strict=True):
                if length > LIMITS.timeline_cap + LIMITS.timeline_slack:
                    yield
                    self.machine.redis(Redis([timelines.compact(target, LIMITS.timeline_cap)]))
        for done_part, offset in self.queue.release():
            self.committed[done_part] = offset


class CardsFlow(Flow):
    def turn(self) -> Steps[None]:
        part, batch = self.take()
        people = {person for record in batch for person in record.row}
        yield from self.machine.run(documents.refresh([(VIEWER, person) for person in people], URL))
        self.committed[part] = self.position[part]


class Reader:
    """An API process that builds the timelines of people who come to read."""

    def __init__(self, machine: Machine, dice: random.Random) -> None:
        self.machine = machine
        self.dice = dice
        self.steps: Iterator[None] = iter(())

    def step(self) -> None:
        try:
            next(self.steps)
        except StopIteration:
            self.steps = self.visit(self.dice.choice(self.machine.database.users))

    def crash(self) -> None:
        self.steps = iter(())

    def visit(self, viewer: UUID) -> Steps[None]:
        from readmodels.home import read_home

        home = yield from self.machine.run(read_home(viewer, URL))
        generation = yield from self.machine.run(readiness.generation())
        if home is None and generation is not None:
            yield from self.machine.run(timelines.build(viewer, generation, LIMITS.timeline_cap, 3600))
