"""Seeded interleavings of writers, flows and readers over a real Valkey; at rest every timeline equals its oracle."""

import os
import random
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from fanline.resp import pack
from readmodels import documents, followers, readiness, recents, timelines
from readmodels.effects import Command, Redis, command
from readmodels.entries import BUILDING
from readmodels.home import read_home
from readmodels.home_rules import Page, select_page
from readmodels.relations import VIEWER
from tests.simulation.actors import URL, CardsFlow, FollowersFlow, Machine, Reader, TimelinesFlow
from tests.simulation.world import HABITS, Database

SEEDS = int(os.environ.get("FANLINE_SIMULATION_SEEDS", "1000"))
GROUP = 50
PEOPLE = 9
STEPS = 500
STORM = 125

Execute = Callable[[Redis], list[Any]]
WIPE = Redis([Command(b"", pack(b"FLUSHALL"))])


class Simulation:
    """One seed: people who write, three flows and two readers, any of which may crash before any step."""

    def __init__(self, seed: int, redis: Execute, *, changefeed: bool = False) -> None:
        self.dice = random.Random(seed)
        self.redis = redis
        self.database = Database([UUID(int=self.dice.getrandbits(128), version=4) for _ in range(PEOPLE)])
        self.database.changefeed = self.dice if changefeed else None
        machine = Machine(self.database, redis)
        self.flows = (
            FollowersFlow(machine, self.dice, ("follows", "users")),
            TimelinesFlow(machine, self.dice),
            CardsFlow(machine, self.dice, ("follows", "relations", "users")),
        )
        self.readers = (Reader(machine, self.dice), Reader(machine, self.dice))
        self.wipes = seed % 5 == 0
        self.storms = seed % 3 == 1
        if self.storms:
            self.database.popular = 1
        # Swarm testing (Groce et al., ISSTA 2012): each seed has a taste of its own, so that rare orders become likely.
        self.actors = (*self.flows, *self.readers)
        self.speeds = [self.dice.choice((1, 4, 20)) for _ in self.actors]
        self.habits = [weight * self.dice.choice((0, 1, 1, 4)) for weight in HABITS]

    def run(self) -> None:
        for step in range(STEPS):
            if self.storms and step % STORM == 0:
                self._turn_the_tide(coming=step // STORM % 2 == 0)
            self._step()
        self.database.send(self.dice, len(self.database.unsent))
        machine = Machine(self.database, self.redis)
        while any(flow.lag() for flow in self.flows) or finish(machine.run(readiness.generation())) is None:
            self.dice.choice(self.flows).step()
        for reader in self.readers:
            finish(reader.steps)
        for viewer in [*self.database.users, *self.database.departed]:
            self._forget_an_abandoned_build(viewer)
            finish(self.readers[0].visit(viewer))

    def follower_differences(self) -> list[str]:
        """Authors whose followers in Redis are not those of the database."""
        found = []
        for author in self.database.users:
            key = followers.facts_key(author)
            chunks = int(self.redis(Redis([command(key, b"HGET", b"chunks")]))[0] or 1)
            held = b"".join(self.redis(Redis([command(b"%s:%d" % (key, n), b"GET")]))[0] or b"" for n in range(chunks))
            wanted = sorted(a.bytes for a, b in self.database.follows if b == author)
            if sorted(followers.split_ids(held)) != wanted:
                found.append(f"{author}: {held.hex(' ', 16)}, not {b''.join(wanted).hex(' ', 16)}")
        return found

    def traces(self) -> list[bytes]:
        """Keys that name somebody who is gone, or hold their id; not those that only say for a while that they are."""
        text = [str(person).encode() for person in self.database.departed]
        raw = [person.bytes for person in self.database.departed]
        found = []
        for key in self.redis(Redis([Command(b"", pack(b"KEYS", b"*"))]))[0]:
            dumped = self.redis(Redis([content_of(key, self.redis(Redis([command(key, b"TYPE")]))[0])]))[0]
            content = b"".join(dumped) if isinstance(dumped, list) else dumped
            named = any(name in key for name in text)
            if named and key.startswith(VIEWER.prefix + b":") and not documents.body(content):
                assert 0 < self.redis(Redis([command(key, b"TTL")]))[0] <= documents.GONE_SECONDS
            elif named or any(identifier in content for identifier in raw):
                found.append(key)
        return found

    def _forget_an_abandoned_build(self, viewer: UUID) -> None:
        # What the list's time to live does after timelines.BUILD_SECONDS.
        header = self.redis(Redis(timelines.read(viewer)[:1]))[0]
        if header and header[0].startswith(BUILDING):
            self.redis(Redis([command(timelines.timeline_key(viewer), b"DEL")]))

    def _turn_the_tide(self, coming: bool) -> None:
        # Everybody follows the popular ones, then everybody leaves: thresholds are crossed in both directions.
        self.habits[:3] = [200, 0, 100] if coming else [0, 200, 100]

    def _step(self) -> None:
        luck = self.dice.random()
        if luck < 0.25:
            self.database.change_at_random(self.dice, self.habits)
        elif luck < 0.27:
            self.dice.choice(self.actors).crash()
        elif luck < 0.275 and self.wipes:
            self.redis(WIPE if self.dice.random() < 0.5 else self._loss_of_a_node())
        else:
            self.dice.choices(self.actors, self.speeds)[0].step()

    def _loss_of_a_node(self) -> Redis:
        # The keys of every second person were on it, and some of the keys that say that all is there.
        lost = [readiness.mark_keys()[self.dice.randrange(64)]]
        for person in self.database.users[::2]:
            lost += [timelines.timeline_key(person), recents.recent_key(person), VIEWER.key(person)]
            lost += [followers.facts_key(person)] + [b"%s:%d" % (followers.facts_key(person), n) for n in range(9)]
        return Redis([command(key, b"DEL") for key in lost])

    def home(self, viewer: UUID) -> tuple[list[int], int]:
        """What a reader makes of Redis, and the floor above which that is everything."""
        machine = Machine(self.database, self.redis)
        home = finish(machine.run(read_home(viewer, URL)))
        assert home is not None, "a timeline that was read at rest is warm"
        pages = select_page(home.entries, Page(limit=10_000), home.viewer, 0)
        try:
            needed = next(pages)
            while True:
                needed = pages.send({post_id: self.database.facts(post_id) for post_id in needed})
        except StopIteration as stop:
            return [entry.id for entry in stop.value], home.floor


def content_of(key: bytes, kind: bytes) -> Command:
    """Reads a key of any type."""
    words: dict[bytes, tuple[bytes | int, ...]] = {
        b"hash": (b"HGETALL",), b"list": (b"LRANGE", 0, -1), b"set": (b"SMEMBERS",),
    }  # fmt: skip
    return command(key, *words.get(bytes(kind), (b"GET",)))


def finish(steps: Any) -> Any:
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        return stop.value


@pytest.mark.parametrize("first_seed", range(0, SEEDS, GROUP))
def test_at_rest_every_timeline_equals_its_oracle_whatever_the_interleaving(first_seed: int, redis: Execute) -> None:
    at_rest(range(first_seed, min(first_seed + GROUP, SEEDS)), redis, changefeed=False)


@pytest.mark.parametrize("first_seed", range(0, SEEDS // 4, GROUP))
def test_the_same_holds_with_followers_whose_changes_come_from_a_changefeed(first_seed: int, redis: Execute) -> None:
    at_rest(range(first_seed, min(first_seed + GROUP, SEEDS // 4)), redis, changefeed=True)


def at_rest(seeds: range, redis: Execute, *, changefeed: bool) -> None:
    for seed in seeds:
        redis(WIPE)
        simulation = Simulation(seed, redis, changefeed=changefeed)
        simulation.run()
        assert simulation.follower_differences() == [], f"seed {seed}"
        for viewer in simulation.database.users:
            shown, floor = simulation.home(viewer)
            expected = [post_id for post_id in simulation.database.home(viewer) if post_id > floor]
            assert shown == expected, f"seed {seed}: {viewer} sees {shown}, the database says {expected}, floor {floor}"
        assert simulation.traces() == [], f"seed {seed}"


def test_the_same_seed_takes_the_same_steps(redis: Execute) -> None:
    histories = []
    for _ in range(2):
        redis(WIPE)
        simulation = Simulation(7, redis)
        simulation.run()
        histories.append((simulation.database.log, [simulation.home(user) for user in simulation.database.users]))
    assert histories[0] == histories[1]
