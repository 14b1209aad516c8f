"""What a follow or an unfollow does: the follower's place among the author's followers, and the backfill.

The race with a post is closed by order: a follow is first added to the followers, then the author's recent list is
merged into the follower's timeline; a post is first added to the recent list, then the followers are read. Whatever the
interleaving, one of the two sees the other. An unfollow needs no clearing: readers look at the relations.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from readmodels import departures, followers, recents, timelines
from readmodels.effects import Effects, Query, Redis
from readmodels.followers import DRAINING, NOW, PULL, PUSH, Edge


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that timelines and followers are kept by; see the `FANLINE_` settings of these names."""

    timeline_cap: int
    timeline_slack: int
    followers_chunk: int
    celebrity_threshold: int

    @property
    def calm_threshold(self) -> int:
        """Followers below which a celebrity's posts are pushed again: lower, so that nobody goes back and forth."""
        return self.celebrity_threshold * 4 // 5


def apply_edges(edges: Sequence[Edge], limits: Limits, departed: Collection[UUID] = ()) -> Effects[None]:
    """Applies follows and unfollows in their order, and that people have left; repeating it changes nothing."""
    lonely = (yield from _apply(edges, limits)) if edges else set()
    yield from departures.forget({*departed, *lonely})


def _apply(edges: Sequence[Edge], limits: Limits) -> Effects[set[UUID]]:
    """Applies follows and unfollows; those whom the last follower has left."""
    replies = yield Redis([followers.apply(edge, limits.followers_chunk) for edge in edges])
    unclear = [
        edge
        for edge, (_, _, _, behind) in zip(edges, replies, strict=True)
        # A row of a snapshot that is read again may have gone since, and its end is a replay by then.
        if not edge.ordered and (behind or edge.position == NOW)
    ]
    if unclear:
        facts = yield from _facts(unclear)
        edges = [*edges, *facts]
        replies = [*replies, *(yield Redis([followers.apply(fact, limits.followers_chunk) for fact in facts]))]
    # Only now: a timeline that becomes warm after this look is built from a database that has the follow.
    added = [edge for edge in edges if edge.follows]
    if added:
        warm = yield Redis([timelines.is_warm(edge.follower) for edge in added])
        yield from _backfill([edge for edge, is_warm in zip(added, warm, strict=True) if is_warm], limits)
    authors = {edge.followee: (reply[1], reply[2]) for edge, reply in zip(edges, replies, strict=True)}
    for author, (count, state) in authors.items():
        yield from _cross_threshold(author, count, state, limits)
    return {edge.followee for edge in edges if not edge.follows and not authors[edge.followee][0]}


def _facts(edges: Sequence[Edge]) -> Effects[list[Edge]]:
    """What the database says now of follows whose changes do not tell what is left of them."""
    wanted = {"followers": [edge.follower for edge in edges], "followees": [edge.followee for edge in edges]}
    rows = yield Query(followers.THERE, wanted)
    there = {(row["follower_id"], row["followee_id"]) for row in rows}
    return [edge.now((edge.follower, edge.followee) in there) for edge in edges]


def _backfill(edges: Sequence[Edge], limits: Limits) -> Effects[None]:
    if not edges:
        return
    authors = list({edge.followee for edge in edges})
    lists = yield Redis([recents.read(author) for author in authors])
    recent = dict(zip(authors, lists, strict=True))
    yield Redis(
        [
            timelines.backfill(edge.follower, recent[edge.followee], limits.timeline_cap)
            for edge in edges
            if recent[edge.followee]
        ]
    )


def _cross_threshold(author: UUID, count: int, state: bytes, limits: Limits) -> Effects[None]:
    if state != PULL and count > limits.celebrity_threshold:
        # Readers merge the author's recent list before posts stop being pushed.
        yield Redis([followers.add_celebrity(author)])
        yield Redis([followers.change_state(author, state, PULL)])
    elif state == PULL and count < limits.calm_threshold:
        yield Redis([followers.change_state(author, PULL, DRAINING)])
        yield from _drain(author, limits)
    elif state == DRAINING:
        yield from _drain(author, limits)
    elif state == PULL:
        yield Redis([followers.add_celebrity(author)])


def _drain(author: UUID, limits: Limits) -> Effects[None]:
    """Brings what was not pushed into every follower's timeline, then ends the merging by readers."""
    recent = (yield Redis([recents.read(author)]))[0]
    index, chunks = 0, 1
    while recent and index < chunks:
        ids, chunks = (yield Redis([followers.read_chunk(author, index)]))[0]
        index += 1
        targets = [UUID(bytes=follower) for follower in followers.split_ids(ids)]
        if targets:
            yield Redis([timelines.backfill(target, recent, limits.timeline_cap) for target in targets])
    yield Redis([followers.remove_celebrity(author)])
    ended = yield Redis([followers.change_state(author, DRAINING, PUSH)])
    if not ended[0]:
        # The author has crossed the threshold upwards meanwhile.
        yield Redis([followers.add_celebrity(author)])
