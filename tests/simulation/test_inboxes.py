"""Seeded interleavings of writers, the dispatcher and readers over a real Valkey; at rest inboxes equal the rows."""

import os
import random
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from fanline.resp import pack
from readmodels import inbox, presence
from readmodels.effects import Command, Effects, Query, Redis, command
from readmodels.inbox import Changed, Inbox, Item
from readmodels.notifications import LISTED, TYPES

SEEDS = int(os.environ.get("FANLINE_SIMULATION_SEEDS", "500"))
GROUP = 250
STEPS = 250
PARTITIONS = 2
BATCH = 5
CAP, SLACK = 6, 3
WARM_SECONDS = 1_000
START_MS = 1_795_000_000_000

Execute = Callable[[Redis], list[Any]]
Steps = Generator[None, None, Any]
WIPE = Redis([Command(b"", pack(b"FLUSHALL"))])


class World:
    """Rows of notifications and markers, and the log of their changes; every method is one committed transaction."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.users = [UUID(int=dice.getrandbits(128), version=4) for _ in range(4)]
        self.departed: list[UUID] = []
        self.rows: dict[int, dict[str, Any]] = {}
        self.markers: dict[UUID, int] = {}
        self.log: list[list[Changed | UUID]] = [[] for _ in range(PARTITIONS)]

    def change_at_random(self) -> None:
        user = self.dice.choice(self.users)
        mine = [row for row in self.rows.values() if row["user_id"] == user]
        match self.dice.choices(range(7), (40, 15, 10, 10, 3, 8, 1))[0]:
            case 0:
                self._insert(user)
            case 1 if mine:
                self._set(self.dice.choice(mine), dismissed=True)
            case 2 if mine:
                self._set(self.dice.choice(mine), filtered=False)
            case 3 if mine:
                gone = self.dice.choice(mine)
                del self.rows[gone["id"]]
                self._tell(gone)
            case 4:
                for row in mine:
                    self._set(row, dismissed=True)
            case 5 if mine:
                self.markers[user] = max(self.dice.choice(mine)["id"], self.markers.get(user, 0))
                self.log[users_partition(user)].append(Changed(user, 0))
            case 6 if len(self.users) > 2:
                self._depart(user)

    def _depart(self, user: UUID) -> None:
        self.users.remove(user)
        self.departed.append(user)
        self.markers.pop(user, None)
        self.log[users_partition(user)].append(user)
        for row in [row for row in self.rows.values() if user in (row["user_id"], row["from_account_id"])]:
            del self.rows[row["id"]]
            self._tell(row)

    def _insert(self, user: UUID) -> None:
        # Facts come late and within one millisecond of each other.
        ms = START_MS + self.dice.randrange(30)
        number = ms << 16 | self.dice.randrange(65_536)
        if number in self.rows:
            return
        self.rows[number] = {
            "id": number, "user_id": user, "type": self.dice.choice(TYPES), "post_id": self.dice.choice((None, 5)),
            "from_account_id": self.dice.choice(self.users), "filtered": self.dice.random() < 0.2, "dismissed": False,
            "created_at": datetime.fromtimestamp(ms / 1000, UTC),
        }  # fmt: skip
        self._tell(self.rows[number])

    def _set(self, row: dict[str, Any], **columns: Any) -> None:
        row.update(columns)
        self._tell(row)

    def _tell(self, row: dict[str, Any]) -> None:
        self.log[row["id"] % PARTITIONS].append(Changed(row["user_id"], row["id"]))

    def listed(self, user: UUID) -> list[Item]:
        """The oracle: what a person is shown, newest first."""
        shown = [r for r in self.rows.values() if r["user_id"] == user and not r["dismissed"] and not r["filtered"]]
        return [inbox.item_of(row) for row in sorted(shown, key=lambda row: -row["id"])]

    def answer(self, query: Query) -> list[dict[str, Any]]:
        parameters = query.parameters
        match query.sql:
            case s if s == LISTED:
                ids = [item.id for item in self.listed(parameters["user_id"])]
                return [self.rows[number] for number in ids[: parameters["limit"]]]
            case s if s == inbox.LISTED_OF:
                found = (self.rows.get(number) for number in parameters["ids"])
                return [dict(row) for row in found if row is not None and not row["dismissed"]]
            case s if s == inbox.MARKERS:
                users = [user for user in parameters["users"] if user in self.markers]
                return [{"user_id": user, "last_read_id": self.markers[user]} for user in users]
            case s if s == presence.PRESENT:
                return [{"id": user} for user in parameters["ids"] if user in self.users]
        raise AssertionError(f"the world does not know this query: {query.sql}")


def users_partition(user: UUID) -> int:
    return user.int % PARTITIONS


def steps(effects: Effects[Any], world: World, redis: Execute) -> Steps:
    """Runs a generator; others may act between any two of its effects."""
    answer: Any = None
    while True:
        try:
            wanted = effects.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = redis(wanted) if isinstance(wanted, Redis) else world.answer(wanted)
        yield


def applied(changes: list[Changed | UUID]) -> Effects[None]:
    rows = [each for each in changes if isinstance(each, Changed)]
    return inbox.apply(rows, CAP, SLACK, [each for each in changes if isinstance(each, UUID)])


class Dispatcher:
    """One instance of the flow, with its partitions; a crash forgets what is under way, and perhaps some progress."""

    def __init__(self, world: World, redis: Execute, partition: int) -> None:
        self.world, self.redis, self.log = world, redis, world.log[partition]
        self.applied = 0
        self.work: Steps | None = None
        self.reading = 0

    def step(self) -> None:
        if self.work is None:
            if self.applied == len(self.log):
                return
            self.reading = min(len(self.log), self.applied + self.world.dice.randint(1, BATCH))
            self.work = steps(applied(self.log[self.applied : self.reading]), self.world, self.redis)
        try:
            next(self.work)
        except StopIteration:
            self.work, self.applied = None, self.reading

    def crash(self) -> None:
        self.work = None
        self.applied = self.world.dice.randint(max(0, self.applied - 10), self.applied)

    @property
    def lags(self) -> bool:
        return self.work is not None or self.applied < len(self.log)


class Reader:
    """Somebody who opens notifications: fills the inbox where it is not there."""

    def __init__(self, world: World, redis: Execute) -> None:
        self.world, self.redis = world, redis
        self.work: Steps | None = None

    def step(self) -> None:
        if self.work is None:
            user = self.world.dice.choice(self.world.users)
            if read(user, self.redis) is not None:
                return
            self.work = steps(inbox.fill(user, CAP, WARM_SECONDS), self.world, self.redis)
        try:
            next(self.work)
        except StopIteration:
            self.work = None

    def crash(self) -> None:
        self.work = None


def read(user: UUID, redis: Execute) -> Inbox | None:
    return inbox.parse(redis(Redis([inbox.read(user)]))[0])


def simulate(seed: int, redis: Execute) -> World:
    dice = random.Random(seed)
    world = World(dice)
    dispatchers = [Dispatcher(world, redis, partition) for partition in range(PARTITIONS)]
    actors: list[Dispatcher | Reader] = [*dispatchers, Reader(world, redis), Reader(world, redis)]
    speeds = [dice.choice((1, 4, 12)) for _ in actors]
    for _ in range(STEPS):
        luck = dice.random()
        if luck < 0.25:
            world.change_at_random()
        elif luck < 0.28:
            dice.choice(actors).crash()
        elif luck < 0.285 and seed % 3 == 0:
            redis(Redis([command(inbox.inbox_key(dice.choice(world.users)), b"DEL")]))
        else:
            dice.choices(actors, speeds)[0].step()
    while any(each.lags for each in dispatchers):
        dice.choice(dispatchers).step()
    for user in [*world.users, *world.departed]:
        if read(user, redis) is None:
            # What the time to live does to a fill that nobody ends.
            redis(Redis([command(inbox.inbox_key(user), b"DEL")]))
            for _ in steps(inbox.fill(user, CAP, WARM_SECONDS), world, redis):
                pass
    return world


@pytest.mark.parametrize("first_seed", range(0, SEEDS, GROUP))
def test_at_rest_every_inbox_equals_the_rows_whatever_the_interleaving(first_seed: int, redis: Execute) -> None:
    for seed in range(first_seed, min(first_seed + GROUP, SEEDS)):
        redis(WIPE)
        world = simulate(seed, redis)
        for user in world.users:
            found = read(user, redis)
            assert found is not None, f"seed {seed}: an inbox that was read at rest is there"
            expected = [item for item in world.listed(user) if item.id > found.floor]
            assert list(found.items) == expected, f"seed {seed}: {user}"
            assert found.marker == world.markers.get(user, 0), f"seed {seed}: {user}"
            assert len(found.items) <= CAP + SLACK
            key = inbox.inbox_key(user)
            assert redis(Redis([command(key, b"TTL")]))[0] > 0, f"seed {seed}: {user} would never be forgotten"
        left = redis(Redis([command(inbox.inbox_key(user), b"EXISTS") for user in world.departed]))
        assert not any(left), f"seed {seed}: something is kept of {world.departed}"


def test_replaying_the_whole_log_three_times_changes_nothing(redis: Execute) -> None:
    world = simulate(5, redis)
    before = [read(user, redis) for user in world.users]
    for log in world.log * 3:
        for _ in steps(applied(log), world, redis):
            pass
    assert [read(user, redis) for user in world.users] == before
