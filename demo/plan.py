"""Who writes what and when, decided before anything is sent. Pure: the same seed gives the same plan."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from demo.graph import Graph
from fanline.errors import ConfigurationError


class Kind(StrEnum):
    """What a step does."""

    POST = "post"
    REPLY = "reply"
    REPOST = "repost"
    DELETE = "delete"
    FAVOURITE = "favourite"
    BOOKMARK = "bookmark"


BESIDES = (Kind.DELETE, Kind.FAVOURITE, Kind.BOOKMARK)
"""Kinds that write no post: they come on top of the posts of a plan."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request. `target` is the number of the earlier step whose post it is about."""

    at: float
    """Seconds after the start."""
    kind: Kind
    person: int
    target: int | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of the posts that are no plain ones, and how many of the other steps come with a post."""

    replies: float = 0.1
    reposts: float = 0.08
    deletes: float = 0.02
    favourites: float = 0.5
    bookmarks: float = 0.05
    hashtags: float = 0.3


_SUBJECTS = (
    "The harbour",
    "A neighbour",
    "My sister",
    "The bakery",
    "This band",
    "The late train",
    "Our garden",
    "A fox",
)
_VERBS = ("keeps", "forgot", "found", "painted", "repaired", "recommends", "hums about", "waited for")
_OBJECTS = ("an old map", "the first snow", "a quiet song", "the blue door", "fresh bread", "two kites", "the lost key")
# The first ones are used most.
_HASHTAGS = ("snow", "harbour", "bread", "music", "trains", "foxes", "kites", "gardens")
# How far back replies, reposts and deletes reach, in steps; people answer what is new.
_RECENT = 2_000
# A target this close may still be on its way when its answer is due.
_SETTLE_SECONDS = 1.0


def plan(
    graph: Graph,
    posts: int,
    rate: float,
    *,
    writers: Sequence[int] | None = None,
    seed: int = 0,
    mix: Mix | None = None,
) -> list[Step]:
    """`posts` writes at `rate` a second, evenly spaced, by people drawn from `writers` (everybody if None).

    Replies, reposts, favourites and bookmarks are of posts that are at least a second old by people whom the writer
    follows. A delete takes a post of the writer's own. Where there is no such post, a plain one is written. Deletes,
    favourites and bookmarks come on top of `posts`.
    """
    if posts < 0 or rate <= 0:
        raise ConfigurationError("The number of posts cannot be negative, and their rate must be above 0.")
    chance = random.Random(seed)
    shares = mix or Mix()
    people = list(writers) if writers is not None else list(range(len(graph.names)))
    steps: list[Step] = []
    by_author: dict[int, list[int]] = {}
    reposted: set[tuple[int, int]] = set()
    engaged: set[tuple[Kind, int, int]] = set()
    for number in range(posts):
        at = number / rate
        person = chance.choice(people)
        kind = _draw(chance, shares)
        target = None
        if kind is Kind.DELETE:
            if (own := _settled(steps, by_author.get(person, []), at)) is not None:
                steps.append(Step(at, Kind.DELETE, person, own))
                by_author[person].remove(own)
            kind = Kind.POST
        elif kind is not Kind.POST:
            target = _answerable(chance, graph, person, steps, by_author, at)
            if target is None or (kind is Kind.REPOST and (person, target) in reposted):
                kind, target = Kind.POST, None
        if kind is Kind.REPOST and target is not None:
            reposted.add((person, target))
        else:
            by_author.setdefault(person, []).append(len(steps))
        steps.append(Step(at, kind, person, target, "" if kind is Kind.REPOST else _text(chance, shares)))
        for besides, share in ((Kind.FAVOURITE, shares.favourites), (Kind.BOOKMARK, shares.bookmarks)):
            if chance.random() < share:
                fan = chance.choice(people)
                liked = _answerable(chance, graph, fan, steps, by_author, at)
                if liked is not None and (besides, fan, liked) not in engaged:
                    engaged.add((besides, fan, liked))
                    steps.append(Step(at, besides, fan, liked))
    return steps


def _draw(chance: random.Random, mix: Mix) -> Kind:
    drawn = chance.random()
    for kind, share in ((Kind.REPLY, mix.replies), (Kind.REPOST, mix.reposts), (Kind.DELETE, mix.deletes)):
        if drawn < share:
            return kind
        drawn -= share
    return Kind.POST


def _settled(steps: Sequence[Step], numbers: Sequence[int], at: float) -> int | None:
    """The newest of the steps that is old enough to be built on."""
    for number in reversed(numbers):
        if steps[number].at + _SETTLE_SECONDS <= at:
            return number if number >= len(steps) - _RECENT else None
    return None


def _answerable(
    chance: random.Random,
    graph: Graph,
    person: int,
    steps: Sequence[Step],
    by_author: dict[int, list[int]],
    at: float,
) -> int | None:
    following = graph.following(person)
    for author in chance.sample(following, min(5, len(following))):
        if (number := _settled(steps, by_author.get(author, []), at)) is not None:
            return number
    return None


def _text(chance: random.Random, mix: Mix) -> str:
    text = f"{chance.choice(_SUBJECTS)} {chance.choice(_VERBS)} {chance.choice(_OBJECTS)}."
    if chance.random() < mix.hashtags:
        text += f" #{_HASHTAGS[min(chance.randrange(len(_HASHTAGS)), chance.randrange(len(_HASHTAGS)))]}"
    return text
