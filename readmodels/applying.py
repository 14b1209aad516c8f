"""Turns a batch of effects (readmodels/engagement.py) into commands, one for each value that they touch.

A storm on one post is then one command with many changes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from readmodels import incremental
from readmodels.effects import Command, Effects, Redis
from readmodels.engagement import FORGET, GONE, PRESENT, Effect
from readmodels.incremental import Applier, Kind, Reference


class Routed(NamedTuple):
    """The effects of one row change, and the place that it came from (`incremental.place`)."""

    place: bytes
    effects: Sequence[Effect]


@dataclass(slots=True)
class _Touched:
    """What a batch does to one value: a fate that outweighs every change, or changes by place."""

    kind: Kind
    identifier: int | str
    fate: str = ""
    places: dict[bytes, list[bytes]] | None = None


class Write(NamedTuple):
    """One command for one value; if it answers 0 the value has to be loaded."""

    key: bytes
    data: bytes
    reference: Reference


class Batch:
    """The commands of a batch, and what has to be done when they are answered.

    Every change of the batch must be visible to queries, and all batches before it answered.
    """

    def __init__(self, routed: Iterable[Routed]) -> None:
        self._applier = Applier()
        self._touched: dict[tuple[bytes, int | str], _Touched] = {}
        for place, effects in routed:
            for effect in effects:
                self._add(place, effect)

    def _add(self, place: bytes, effect: Effect) -> None:
        kind, identifier, does = effect
        touched = self._touched.get((kind.prefix, identifier))
        if touched is None:
            touched = self._touched[kind.prefix, identifier] = _Touched(kind, identifier)
        if isinstance(does, bytes):
            if touched.places is None:
                touched.places = {}
            touched.places.setdefault(place, []).append(does)
        elif does == GONE or (does == FORGET and touched.fate != GONE):
            touched.fate = does
        else:
            assert does in (PRESENT, FORGET)

    def writes(self) -> Iterator[Write]:
        """The commands, in no order that matters: each value has one."""
        for touched in self._touched.values():
            kind, identifier = touched.kind, touched.identifier
            key = kind.key(identifier)
            reference = (kind, identifier if isinstance(identifier, int) else UUID(identifier))
            if touched.fate:
                command = incremental.gone(key) if touched.fate == GONE else incremental.forget(key)
                yield Write(key, command.data, reference)
            else:
                groups = [place + b"".join(changes) for place, changes in (touched.places or {}).items()]
                yield Write(key, self._applier.apply(kind, key, groups), reference)

    def complete(self, references: Sequence[Reference], replies: Sequence[object]) -> Effects[int]:
        """Takes in the replies: loads the values that have to be loaded; how many these were."""
        missing = [
            reference
            for reference, reply in zip(references, replies, strict=True)
            if reply == 0 and not self._touched[reference[0].prefix, _identifier(reference)].fate
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
    return (yield from batch.complete([write.reference for write in writes], replies))


def _identifier(reference: Reference) -> int | str:
    identifier = reference[1]
    return identifier if isinstance(identifier, int) else str(identifier)
