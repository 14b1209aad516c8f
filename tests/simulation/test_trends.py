"""Seeded interleavings of people and trends flows over a real Valkey that loses data; at rest it equals the rows."""

import os
import random
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from fanline.changes import RowChange
from fanline.ids import created_ms
from readmodels import trend_marks, trend_uses, trends
from readmodels.effects import Query, Redis, command, drive
from readmodels.trend_uses import Kind
from readmodels.trends import Changes, milliseconds
from tests.simulation.actors import Flow, Machine, Steps
from tests.simulation.ledger import Key, Ledger, Row
from tests.simulation.people import HABITS, act, end
from tests.simulation.test_counts import GROUP, PEOPLE, STEPS, WIPE, Execute, OneByOne, finish

SEEDS = int(os.environ.get("FANLINE_SIMULATION_SEEDS", "1000")) // 6
NAMES = ("a", "b", "c")
FIRST_POST = Ledger.next_post + (1 << 16)
TOPICS = ("posts", "likes")
BLOCK_MS = 3
# A post takes a millisecond: what a seed does lies in several blocks, and all of them are kept.
TAG, POST = (replace(kind, block_ms=BLOCK_MS, past=30) for kind in (trend_uses.TAG, trend_uses.POST))


class Tagged(Ledger):
    """A ledger whose posts have hashtags, which edits change."""

    @property
    def now_ms(self) -> int:
        return (self.next_post >> 16) + 2 * BLOCK_MS

    def answer(self, query: Query) -> list[Row]:
        given = query.parameters
        match query.sql:
            case trends.TAGGED_BY_ID:
                posts = [self.rows[key] for post in given["ids"] if (key := ("posts", post)) in self.rows]
                return [
                    {"id": row["id"], "author_id": UUID(row["author_id"]), "tags": tags_of(row)}
                    for row in posts
                    if row["visibility"] == "public" and row["repost_of_id"] is None
                ]
            case trends.POSTS_THERE:
                return [{"id": post} for post in given["ids"] if ("posts", post) in self.rows]
            case trend_marks.POSTS_AFTER:
                rows = [row for row in self.table("posts") if row["id"] > given["after"] and is_open(row)]
                return sorted(rows, key=lambda row: int(row["id"]))[: given["limit"]]
            case trend_marks.LIKES_AFTER:
                after = given["moment"], given["user"], given["post"]
                likes = [
                    {"created_at": datetime.fromisoformat(row["created_at"]), "user_id": UUID(row["user_id"])}
                    | {"post_id": row["post_id"]}
                    for row in self.table("likes")
                ]
                rows = [row for row in likes if row["created_at"] < given["until"] and tuple(row.values()) > after]
                return sorted(rows, key=lambda row: tuple(row.values()))[: given["limit"]]
        return super().answer(query)

    def read_again(self, key: Key) -> None:
        # Debezium leaves out of a snapshot what changes while it reads.
        if self.is_free([key]):
            super().read_again(key)

    def edit(self, dice: random.Random) -> None:
        keys = [key for key in self.rows if key[0] == "posts"]
        if keys and self.is_free([key := dice.choice(keys)]):
            row = self.rows[key] | {"names": [name for name in NAMES if dice.random() < 0.5]}
            self.write(self.begin(), "u", [key], [row])

    def uses(self, post: int) -> set[bytes]:
        """What people did with a post, nothing with one that is gone: the oracle."""
        if ("posts", post) not in self.rows:
            return set()
        likes = [row for row in self.table("likes") if row["post_id"] == post]
        uses = [(UUID(row["user_id"]).bytes, milliseconds(row["created_at"])) for row in likes]
        by = [
            row for row in filter(is_open, self.table("posts")) if post in (row["repost_of_id"], row["in_reply_to_id"])
        ]
        return trend_uses.expected(POST, [*uses, *map(used, by)])

    def tagged(self, name: str) -> set[bytes]:
        """Who used a hashtag with which posts: the oracle."""
        posts = [row for row in self.table("posts") if row["visibility"] == "public" and row["repost_of_id"] is None]
        return trend_uses.expected(TAG, [used(row) for row in posts if name in tags_of(row)])


def used(row: Row) -> tuple[bytes, int]:
    """The use that a post is, and its ms."""
    return trend_uses.use(UUID(row["author_id"]).bytes, row["id"]), created_ms(row["id"])


def tags_of(row: Row) -> list[str]:
    """Those of the last edit; before it, some that follow from the id."""
    found: list[str] = row.get("names", [name for bit, name in enumerate(NAMES) if (row["id"] >> 16) >> bit & 1])
    return found


def is_open(row: Row) -> bool:
    return row["visibility"] in ("public", "unlisted")


class TrendsFlow(Flow):
    """One instance: its share of every topic; the first one also counts what Redis has lost."""

    def __init__(self, machine: Machine, dice: random.Random, share: list[int], first: bool) -> None:
        super().__init__(machine, dice, TOPICS)
        self.ledger: Any = machine.database
        self.first = first
        self.place: trend_marks.Place | None = None
        self.committed = {part: 0 for part in self.committed if part[1] in share}
        self.position = dict(self.committed)
        self.rejected: list[RowChange] = []

    def crash(self) -> None:
        super().crash()
        self.place = None

    def pulse(self) -> Steps[None]:
        if self.place is not None:
            self.place = yield from self.machine.run(trend_marks.go_on(self.place, self.ledger.now_ms))
        elif not (yield from self.machine.run(trend_marks.are_counted())):
            self.place = yield from self.machine.run(trend_marks.begin(self.ledger.now_ms))

    def turn(self) -> Steps[None]:
        if self.first:
            yield from self.pulse()
        if not self.position:
            return
        part, records = self.take()
        batch: list[RowChange] = []
        for record in records:
            if self.dice.random() < 0.05:
                self.rejected.append(record.row)
            else:
                batch.append(record.row)
        sent_back = self.rejected[:1] if self.dice.random() < 0.2 else []
        for change in sent_back:
            # Its own transaction was visible long before somebody sent it back.
            while not self.ledger.all_visible({each.transaction for each in (*batch, change)}):
                yield
            batch.append(self.present(change))
        while not self.ledger.all_visible({each.transaction for each in batch}):
            yield
        now_ms = self.ledger.now_ms
        facts = (trends.fact(change.table, change.op, change.row, now_ms) for change in batch)
        yield from self.machine.run(trends.apply(Changes(facts, now_ms)))
        self.committed[part] = self.position[part]
        del self.rejected[: len(sent_back)]

    def present(self, change: RowChange) -> RowChange:
        """What `PresentRows` makes of a change that was sent back."""
        key = (change.row["user_id"], change.row["post_id"]) if change.table == "likes" else change.row["id"]
        row = self.ledger.rows.get((change.table, key))
        return RowChange(change.table, "d" if row is None else "r", change.row if row is None else row, (0, 0), 0)

    def lag(self) -> int:
        return super().lag() + len(self.rejected) + (self.place is not None)


class Simulation:
    """One seed: people whose transactions overlap; one instance over a Redis that loses data, or two instances."""

    def __init__(self, seed: int, redis: Execute) -> None:
        self.dice = random.Random(seed)
        self.redis = redis
        self.ledger = Tagged([UUID(int=self.dice.getrandbits(128), version=4) for _ in range(PEOPLE)])
        machine: Any = OneByOne(self.ledger, redis)  # type: ignore[arg-type]
        self.loses = seed % 3 != 0
        shares = [[0, 1]] if self.loses else [[0], [1]]
        self.flows = [TrendsFlow(machine, self.dice, share, self.loses) for share in shares]
        self.habits = [weight * self.dice.choice((0, 1, 1, 4)) for weight in HABITS]
        self.losses = 0

    def run(self) -> None:
        for _ in range(STEPS):
            luck = self.dice.random()
            if luck < 0.18:
                act(self.ledger, self.dice, self.habits)
            elif luck < 0.22:
                self.ledger.edit(self.dice)
            elif luck < 0.4:
                end(self.ledger, self.dice)
            elif luck < 0.42:
                self.dice.choice(self.flows).crash()
            elif luck < 0.425:
                self.go_back()
            elif luck < 0.435 and self.loses:
                self.redis(WIPE if self.dice.random() < 0.5 else self.loss())
                self.losses += 1
            else:
                self.dice.choice(self.flows).step()
        self.rest()

    def go_back(self) -> None:
        """An operator sends a flow back to the beginning."""
        flow = self.dice.choice(self.flows)
        flow.steps = iter(())
        flow.committed = dict.fromkeys(flow.committed, 0)
        flow.position = dict(flow.committed)

    def loss(self) -> Redis:
        """A node of a cluster with some of the marks and of what was done with posts."""
        posts = [row["id"] for row in self.ledger.table("posts") if self.dice.random() < 0.5]
        lost = [trend_uses.forget(POST, b"%d" % post, self.ledger.now_ms) for post in posts]
        return Redis([command(trend_marks.mark_keys()[0], b"DEL"), *lost])

    def rest(self) -> None:
        while self.ledger.open:
            self.ledger.commit(self.dice.choice(self.ledger.open))
        while self.ledger.logged:
            self.ledger.show(self.dice.choice(self.ledger.logged))
        for flow in self.flows:
            # A look at the marks, at least.
            finish(flow.steps)
            while flow.lag() or (flow.first and not finish(flow.machine.run(trend_marks.are_counted()))):
                flow.step()

    def differences(self) -> list[str]:
        posts = range(FIRST_POST, self.ledger.next_post + 1, 1 << 16)
        assert len(posts) < POST.past * BLOCK_MS
        found = [(f"uses of {post}", self.kept(POST, b"%d" % post), self.ledger.uses(post)) for post in posts]
        found += [(name, self.kept(TAG, name.encode()), self.ledger.tagged(name)) for name in NAMES]
        return [
            f"{what}: extra {sorted(has - wanted)}, missing {sorted(wanted - has)}"
            for what, has, wanted in found
            if has != wanted
        ]

    def kept(self, kind: Kind, subject: bytes) -> set[bytes]:
        contents = trend_uses.contents(kind, [subject], kind.kept_blocks(self.ledger.now_ms))
        (found,) = drive(contents, self.redis, self.ledger.answer)
        assert len(found) == len(set(found))
        return set(found)


@pytest.mark.parametrize("first_seed", range(0, SEEDS, GROUP))
def test_at_rest_what_is_counted_equals_the_rows_whatever_is_lost(
    first_seed: int, redis: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trend_marks, "ROWS", 3)
    monkeypatch.setattr(trend_marks, "SPAN", timedelta(milliseconds=POST.kept_ms // 2))
    for module in (trends, trend_marks):
        monkeypatch.setattr(module, "TAG", TAG)
        monkeypatch.setattr(module, "POST", POST)
    losses = 0
    for seed in range(first_seed, min(first_seed + GROUP, SEEDS)):
        redis(WIPE)
        simulation = Simulation(seed, redis)
        simulation.run()
        assert simulation.differences() == [], f"seed {seed}"
        losses += simulation.losses
    assert losses > 0
