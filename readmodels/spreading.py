"""How a post reaches its author's followers: what is read and written, in the order that loses nothing.

See readmodels/following.py for the other half of the race, and readmodels/fan_out.py for whose turn it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from readmodels import followers, recents, timelines
from readmodels.effects import Effects, Redis
from readmodels.fan_out import FanOut, FanOutQueue
from readmodels.followers import PULL
from readmodels.following import Limits
from readmodels.generations import current, using


@dataclass(frozen=True, slots=True)
class Post:
    """What the fan-out needs to know of a post that was made."""

    author: UUID
    entry: bytes
    direct: bool
    source_ms: int
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some followers of an author (16-byte ids, one after the other) who are to get some of the author's posts now."""

    fan_outs: Sequence[FanOut]
    index: int
    followers: bytes


def begin(posts: Sequence[Post], limits: Limits) -> Effects[list[FanOut]]:
    """Adds posts to their authors' recent lists; the fan-outs to be queued, one a post, in order.

    The author's own timeline is the first chunk of nobody: it gets the post whatever the author's state.
    """
    if not posts:
        return []
    spread = [post for post in posts if not post.direct]
    states = yield Redis(
        [recents.add(post.author, post.entry, limits.timeline_cap, limits.timeline_slack) for post in spread]
    )
    chunks = {id(post): (0 if state == PULL else number) for post, (state, number) in zip(spread, states, strict=True)}
    yield Redis([timelines.push(post.author, post.entry) for post in posts])
    generation = current(followers.MODEL)
    return [
        FanOut(
            post.author, post.entry, post.source_ms, post.traceparent,
            chunks=chunks.get(id(post), 0), generation=generation,
        )
        for post in posts
    ]  # fmt: skip


def advance(queue: FanOutQueue[Any], turns: int) -> Effects[list[Chunk]]:
    """Takes the next turns of a queue and reads their chunks of followers."""
    taken = queue.take(turns)
    if not taken:
        return []
    reads = []
    for turn in taken:
        with using(followers.MODEL, turn.generation):
            reads.append(followers.read_chunk(turn.author, turn.chunk))
    read = yield Redis(reads)
    chunks = []
    for turn, (ids, number) in zip(taken, read, strict=True):
        queue.finish(turn, number)
        chunks.append(Chunk(turn.fan_outs, turn.chunk, ids))
    return chunks
