"""Who follows whom: reading an edge list, and growing a scale-free network. Pure; files are opened elsewhere.

An edge list has one `follower followee` a line, separated by white space; what follows `#` is a comment. Names are
any text without white space. Repeated edges and people who follow themselves are left out, and counted.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from fanline.errors import ConfigurationError

MAX_NAME = 200


@dataclass(slots=True)
class Graph:
    """People, numbered from 0 in the order in which they first appear, and follows as (follower, followee)."""

    names: list[str]
    follows: list[tuple[int, int]]
    ignored: int = 0
    _following: list[list[int]] | None = field(default=None, repr=False)
    _followers: list[list[int]] | None = field(default=None, repr=False)

    def following(self, person: int) -> list[int]:
        """Whom the person follows."""
        if self._following is None:
            self._following = _grouped(len(self.names), self.follows)
        return self._following[person]

    def followers(self, person: int) -> list[int]:
        """Who follows the person."""
        if self._followers is None:
            self._followers = _grouped(len(self.names), ((followee, follower) for follower, followee in self.follows))
        return self._followers[person]


def parse_edges(lines: Iterable[bytes], source: str) -> Graph:
    """The graph of an edge list; raises `ConfigurationError` naming `source` and the line that cannot be read."""
    people: dict[str, int] = {}
    edges: dict[tuple[int, int], None] = {}
    seen = 0
    for number, raw in enumerate(lines, start=1):
        words = _words(raw, source, number)
        if not words:
            continue
        seen += 1
        follower, followee = (people.setdefault(word, len(people)) for word in words)
        if follower != followee:
            edges[follower, followee] = None
    if not edges:
        raise ConfigurationError(f"{source} holds no follows.")
    return Graph(list(people), list(edges), ignored=seen - len(edges))


def scale_free(people: int, follows: int, seed: int = 0) -> Graph:
    """A network whose followers are spread like a social network's: most have few, some have very many.

    Everybody follows the same number of people (give or take one), picked by preferential attachment: four times
    in five among those who joined before, in proportion to their followers, else evenly among all. The same arguments
    give the same network.
    """
    if people < 2:
        raise ConfigurationError("A network needs at least 2 people.")
    if not 0 < follows <= people * (people - 1):
        raise ConfigurationError(f"{people} people can have between 1 and {people * (people - 1)} follows.")
    chance = random.Random(seed)
    order = chance.sample(range(people), people)
    popularity = [order[0]]
    edges: list[tuple[int, int]] = []
    for turn, follower in enumerate(order):
        wanted = follows // people + (turn < follows % people)
        chosen = _choose(chance, follower, wanted, people, popularity)
        edges.extend((follower, followee) for followee in chosen)
        popularity.append(follower)
        popularity.extend(chosen)
    return Graph([str(person) for person in range(people)], edges)


def _choose(chance: random.Random, follower: int, wanted: int, people: int, popularity: list[int]) -> list[int]:
    chosen: dict[int, None] = {}
    # In a dense network most draws repeat; past a few draws a place the rest is drawn evenly from who is left.
    for _ in range(wanted * 8):
        if len(chosen) == wanted:
            break
        candidate = chance.choice(popularity) if chance.random() < 0.8 else chance.randrange(people)
        if candidate != follower:
            chosen[candidate] = None
    if len(chosen) < wanted:
        left = [person for person in range(people) if person != follower and person not in chosen]
        chosen.update(dict.fromkeys(chance.sample(left, wanted - len(chosen))))
    return list(chosen)


def _words(raw: bytes, source: str, number: int) -> list[str]:
    try:
        words = raw.partition(b"#")[0].decode().split()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{source}, line {number}: the line is not UTF-8.") from error
    if not words:
        return words
    if len(words) != 2:
        raise ConfigurationError(
            f"{source}, line {number}: expected a follower and a followee, found {len(words)} "
            f"{'word' if len(words) == 1 else 'words'}."
        )
    if any(len(word) > MAX_NAME or "\0" in word for word in words):
        raise ConfigurationError(f"{source}, line {number}: a name is longer than {MAX_NAME} characters or has a NUL.")
    return words


def _grouped(people: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    grouped: list[list[int]] = [[] for _ in range(people)]
    for key, value in pairs:
        grouped[key].append(value)
    return grouped
