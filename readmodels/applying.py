"""Turns a batch of effects (readmodels/engagement.py) into commands, one for each value that they touch.

A storm on one post is then one command with many changes.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from readmodels import incremental
from readmodels.effects import Command, Effects, Redis
from readmodels.engagement import FORGET, GONE, KINDS, Effect
from readmodels.incremental import Applier, Id, Kind, Reference


class Routed(NamedTuple):
    """The effects of one row change, and the place that it came from (`incremental.place`)."""

    place: bytes
    effects: Sequence[Effect]


class Write(NamedTuple):
    """One command for one value; if it answers 0 the value has to be loaded."""

    key: bytes
    data: bytes
    subject: tuple[Kind, int | str]


class Batch:
    """The commands of a batch, and what has to be done when they are answered.

    Every change of the batch must be visible to queries, and all batches before it answered.
    """

    def __init__(self, routed: Iterable[Routed]) -> None:
        self._applier = Applier()
        # For each value, places and changes in turn; and the fates, which outweigh every change.
        self._changes: dict[bytes, dict[int | str, list[bytes]]] = {kind.prefix: {} for kind in KINDS}
        self._fates: dict[bytes, dict[int | str, str]] = {kind.prefix: {} for kind in KINDS}
        for place, effects in routed:
            for kind, identifier, does in effects:
                changes = self._changes[kind.prefix]
                found = changes.get(identifier)
                if type(does) is bytes:
                    if found is None:
                        changes[identifier] = [place, does]
                    else:
                        found += (place, does)
                else:
                    self._meet(kind, identifier, str(does))

    def _meet(self, kind: Kind, identifier: int | str, fate: str) -> None:
        self._changes[kind.prefix].setdefault(identifier, [])
        fates = self._fates[kind.prefix]
        if fate == GONE or (fate == FORGET and fates.get(identifier) != GONE):
            fates[identifier] = fate

    def writes(self) -> Iterator[Write]:
        """The commands, in no order that matters: each value has one."""
        for kind in KINDS:
            start, fates, apply = kind.key_start(), self._fates[kind.prefix], self._applier.packer(kind)
            for identifier, changes in self._changes[kind.prefix].items():
                key = b"%b%b}" % (start, str(identifier).encode())
                fate = fates.get(identifier) if fates else None
                if fate is not None:
                    data = (incremental.gone(key) if fate == GONE else incremental.forget(key)).data
                elif len(changes) == 2:
                    data = apply(key, (changes[0] + changes[1],))
                else:
                    data = apply(key, _groups(changes))
                yield Write(key, data, (kind, identifier))

    def complete(self, subjects: Sequence[tuple[Kind, int | str]], replies: Sequence[object]) -> Effects[int]:
        """Takes in the replies: loads the values that have to be loaded; how many these were."""
        missing: list[Reference] = [
            (kind, _id(identifier))
            for (kind, identifier), reply in zip(subjects, replies, strict=True)
            if reply == 0 and identifier not in self._fates[kind.prefix]
        ]
        if missing:
            yield from incremental.complete(missing, self._applier.token)
        return len(missing)


def apply(routed: Iterable[Routed]) -> Effects[int]:
    """Applies a batch, one effect after the other; how many values had to be loaded."""
    batch = Batch(routed)
    writes = list(batch.writes())
    if not writes:
        return 0
    replies = yield Redis([Command(write.key, write.data) for write in writes])
    return (yield from batch.complete([write.subject for write in writes], replies))


def _groups(changes: Sequence[bytes]) -> list[bytes]:
    """The changes of each place behind the place."""
    places: dict[bytes, list[bytes]] = {}
    for at in range(0, len(changes), 2):
        places.setdefault(changes[at], []).append(changes[at + 1])
    return [place + b"".join(those) for place, those in places.items()]


def _id(identifier: int | str) -> Id:
    return identifier if isinstance(identifier, int) else UUID(identifier)
