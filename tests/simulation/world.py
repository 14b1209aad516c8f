"""A small world for simulations: a database with a change log, and the oracle a second time, in plain Python."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from readmodels import followers, presence, readiness, recents, relations, timelines
from readmodels.effects import Query
from readmodels.home_rules import PostFacts

PARTITIONS = 2
FIRST_NANOSECOND = 1_747_243_394_200_039_000
"""Where the clock of a CockroachDB begins: more than a double can tell apart."""
HABITS = (30, 16, 30, 8, 10, 6, 2, 2, 3, 1)
"""How often people follow, unfollow, post, reply, repost, delete, block, unblock, mute or unmute, and leave."""
PEOPLE_WHO_STAY = 6


@dataclass(frozen=True)
class PostRow:
    id: int
    author: UUID
    visibility: str = "public"
    in_reply_to_account: UUID | None = None
    repost_of: int | None = None


@dataclass(frozen=True)
class LogRecord:
    """A change as a flow sees it: where it was committed, and the row."""

    position: tuple[int, int]
    partition: int
    operation: str
    row: Any


@dataclass
class Database:
    """Tables, and a log a topic; every method is one committed transaction."""

    users: list[UUID]
    posts: dict[int, PostRow] = field(default_factory=dict)
    follows: dict[tuple[UUID, UUID], bool] = field(default_factory=dict)
    blocks: set[tuple[UUID, UUID]] = field(default_factory=set)
    mutes: set[tuple[UUID, UUID]] = field(default_factory=set)
    log: dict[tuple[str, int], list[LogRecord]] = field(default_factory=lambda: defaultdict(list))
    commits: int = 0
    next_id: int = 1 << 40
    departed: list[UUID] = field(default_factory=list)
    popular: int = 3
    """How many people, the first ones, nearly everybody follows."""
    changefeed: random.Random | None = None
    """If there, follows come as from a changefeed (tests/simulation/changefeed.py)."""
    unsent: list[tuple[object, LogRecord]] = field(default_factory=list)

    def _append(self, topic: str, key: object, operation: str, row: Any) -> None:
        self.commits += 1
        partition = sum(map(ord, str(key))) % PARTITIONS
        position = (self.commits, self.commits)
        if self.changefeed is not None and topic == "follows":
            position = (FIRST_NANOSECOND + self.commits, 0)
            self.unsent.append((key, LogRecord(position, partition, operation, row)))
            self.send(self.changefeed, self.changefeed.randint(0, 2))
            return
        self.log[topic, partition].append(LogRecord(position, partition, operation, row))

    def send(self, dice: random.Random, number: int) -> None:
        """Sends follows that were committed: in any order, but those of a row in theirs; some again."""
        for _ in range(min(number, len(self.unsent))):
            key = dice.choice(self.unsent)[0]
            sent = next(each for each in self.unsent if each[0] == key)
            self.unsent.remove(sent)
            log = self.log["follows", sent[1].partition]
            log.append(sent[1])
            if dice.random() < 0.1:
                log += log[-dice.randint(1, 6) :]

    def follow(self, follower: UUID, followee: UUID, show_reblogs: bool = True) -> None:
        edge = (follower, followee)
        operation = "u" if edge in self.follows else "c"
        self.follows[edge] = show_reblogs
        self._append("follows", edge, operation, edge)

    def unfollow(self, follower: UUID, followee: UUID) -> None:
        if self.follows.pop((follower, followee), None) is not None:
            self._append("follows", (follower, followee), "d", (follower, followee))

    def post(self, author: UUID, **columns: Any) -> PostRow | None:
        repost_of = columns.get("repost_of")
        if repost_of and any(p.author == author and p.repost_of == repost_of for p in self.posts.values()):
            return None
        # As far apart as ids of different milliseconds.
        self.next_id += 1 << 16
        row = PostRow(self.next_id, author, **columns)
        self.posts[row.id] = row
        self._append("posts", row.id, "c", row)
        return row

    def delete(self, post_id: int) -> None:
        doomed = [p.id for p in self.posts.values() if p.id == post_id or p.repost_of == post_id]
        for doomed_id in doomed:
            self._append("posts", doomed_id, "d", self.posts.pop(doomed_id))

    def block(self, blocker: UUID, blocked: UUID) -> None:
        self.unfollow(blocker, blocked)
        self.unfollow(blocked, blocker)
        self.blocks.add((blocker, blocked))
        self._append("relations", (blocker, blocked), "c", (blocker, blocked))

    def unblock(self, blocker: UUID, blocked: UUID) -> None:
        if (blocker, blocked) in self.blocks:
            self.blocks.remove((blocker, blocked))
            self._append("relations", (blocker, blocked), "d", (blocker, blocked))

    def mute(self, muter: UUID, muted: UUID) -> None:
        self.mutes.symmetric_difference_update({(muter, muted)})
        self._append("relations", (muter, muted), "u", (muter, muted))

    def depart(self, user: UUID) -> None:
        """An account is deleted, and with it everything that the database deletes then."""
        self.users.remove(user)
        self.departed.append(user)
        self._append("users", user, "d", (user,))
        for post in [p.id for p in self.posts.values() if p.author == user]:
            if post in self.posts:
                self.delete(post)
        for follower, followee in [edge for edge in self.follows if user in edge]:
            self.unfollow(follower, followee)
        for pairs in (self.blocks, self.mutes):
            for pair in [pair for pair in sorted(pairs) if user in pair]:
                pairs.remove(pair)
                self._append("relations", pair, "d", pair)

    def change_at_random(self, dice: random.Random, habits: list[int]) -> None:
        """One transaction of somebody; `habits` weighs the kinds as `HABITS` does."""
        one, other = dice.sample(self.users, 2)
        posts = list(self.posts.values())
        match dice.choices(range(10), habits if any(habits) else HABITS)[0]:
            case 0:
                # A few people are followed by nearly everybody, so that thresholds are crossed.
                popular = [user for user in self.users[: self.popular] if user != one] or [other]
                self.follow(one, dice.choice(popular) if dice.random() < 0.5 else other, dice.random() < 0.9)
            case 1:
                edges = list(self.follows) or [(one, other)]
                of_popular = [edge for edge in edges if edge[1] in self.users[: self.popular]]
                self.unfollow(*dice.choice(of_popular if of_popular and dice.random() < 0.7 else edges))
            case 2:
                author = dice.choice(self.users[: self.popular]) if dice.random() < 0.4 else one
                self.post(author, visibility=dice.choice(("public", "public", "private", "direct")))
            case 3 if posts:
                self.post(one, in_reply_to_account=dice.choice(posts).author)
            case 4 if posts:
                original = dice.choice(posts)
                if original.visibility == "public" and original.repost_of is None:
                    self.post(one, repost_of=original.id)
            case 5 if posts:
                self.delete(dice.choice(posts).id)
            case 6:
                self.block(one, other)
            case 7:
                self.unblock(*dice.choice(list(self.blocks) or [(one, other)]))
            case 8:
                self.mute(one, other)
            case 9 if len(self.users) > PEOPLE_WHO_STAY:
                self.depart(one)

    def answer(self, query: Query) -> list[dict[str, Any]]:
        """The rows of the queries that the read models make."""
        parameters = query.parameters
        match query.sql:
            case timelines.EVERYTHING:
                return self._everything(parameters["viewer"])[: parameters["limit"]]
            case relations.VIEWERS_BY_ID:
                return [self._viewer(user) for user in parameters["ids"] if user in self.users]
            case presence.PRESENT:
                return [{"id": user} for user in parameters["ids"] if user in self.users]
            case readiness.AUTHORS_AFTER:
                after = [user for user in sorted(self.users) if user > parameters["after"]]
                return [{"id": user} for user in after[: parameters["limit"]]]
            case followers.EDGES_OF_AUTHORS:
                edges = sorted((b, a) for a, b in self.follows if b in parameters["authors"])
                return [{"followee_id": followee, "follower_id": follower} for followee, follower in edges]
            case followers.THERE:
                wanted = zip(parameters["followers"], parameters["followees"], strict=True)
                return [{"follower_id": a, "followee_id": b} for a, b in wanted if (a, b) in self.follows]
            case recents.NEWEST_BY_AUTHOR:
                rows = []
                for author in parameters["authors"]:
                    own = [p for p in self.posts.values() if p.author == author and p.visibility != "direct"]
                    own.sort(key=lambda post: -post.id)
                    rows += [
                        {"author_id": author, "id": p.id, "repost_of_id": p.repost_of}
                        for p in own[: parameters["limit"]]
                    ]
                return rows
        raise AssertionError(f"the world does not know this query: {query.sql}")

    def _everything(self, viewer: UUID) -> list[dict[str, Any]]:
        shown = [
            p
            for p in self.posts.values()
            if p.author == viewer or ((viewer, p.author) in self.follows and p.visibility != "direct")
        ]
        return [{"id": p.id, "repost_of_id": p.repost_of} for p in sorted(shown, key=lambda p: -p.id)]

    def _viewer(self, user: UUID) -> dict[str, Any]:
        muted = sorted(b for a, b in self.mutes if a == user)
        return {
            "id": user,
            "followees": [b for a, b in self.follows if a == user],
            "without_reposts": [b for (a, b), show in self.follows.items() if a == user and not show],
            "blocked": sorted({b if a == user else a for a, b in self.blocks if user in (a, b)}),
            "muted": muted,
            "mutes_end_ms": [0] * len(muted),
            "filters": None,
        }

    def facts(self, post_id: int) -> PostFacts | None:
        post = self.posts.get(post_id)
        if post is None:
            return None
        target = post.in_reply_to_account
        return PostFacts(post.author.bytes, target.bytes if target else None)

    def home(self, viewer: UUID) -> list[int]:
        """The oracle: what the viewer must see, newest first."""
        followees = {b for a, b in self.follows if a == viewer}
        hidden = {b if a == viewer else a for a, b in self.blocks if viewer in (a, b)}
        hidden |= {b for a, b in self.mutes if a == viewer}
        seen: set[int] = set()
        shown = []
        for post in sorted(self.posts.values(), key=lambda p: -p.id):
            own = post.author == viewer
            if not own and (post.author not in followees or post.visibility == "direct"):
                continue
            if post.author in hidden:
                continue
            if post.repost_of:
                if self.posts[post.repost_of].author in hidden:
                    continue
                if not own and not self.follows[viewer, post.author]:
                    continue
            target = post.in_reply_to_account
            if target and target not in (viewer, post.author) and target not in followees:
                continue
            original = post.repost_of or post.id
            if original not in seen:
                seen.add(original)
                shown.append(post.id)
        return shown
