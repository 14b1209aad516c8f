"""Turns a batch of effects (readmodels/engagement.py) into commands, one for each value that they touch.

A storm on one post is then one command with many changes.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from readmodels import incremental
from readmodels.effects import Command, Effects, Redis
from readmodels.engagement import FORGET, GONE, KINDS, Effect, EffectColumn
from readmodels.incremental import Applier, Changes, Id, Kind, Reference


class Routed(NamedTuple):
    """The effects of one row change, and the place that it came from (`incremental.place`)."""

    place: bytes
    effects: Sequence[Effect]


class RoutedRun(NamedTuple):
    """The effects of row changes that follow each other in one place."""

    place: bytes
    columns: Sequence[EffectColumn]


class Writes(NamedTuple):
    """Commands for values of one kind, one for each; what answers 0 has to be loaded."""

    kind: Kind
    identifiers: Sequence[int | str]
    keys: Sequence[bytes]
    data: Sequence[bytes]


class Batch:
    """The commands of a batch, and what has to be done when they are answered.

    Every change of the batch must be visible to queries, and all batches before it answered.
    """

    def __init__(self, routed: Iterable[Routed | RoutedRun]) -> None:
        self._applier = Applier()
        # What happens to each value; and the fates, which outweigh every change.
        self._changes: dict[bytes, dict[int | str, Changes]] = {kind.prefix: {} for kind in KINDS}
        self._fates: dict[bytes, dict[int | str, str]] = {kind.prefix: {} for kind in KINDS}
        for each in routed:
            if isinstance(each, RoutedRun):
                for column in each.columns:
                    self._add(each.place, column)
                continue
            for kind, identifier, does in each.effects:
                if isinstance(does, bytes):
                    self._add(each.place, EffectColumn(kind, (identifier,), (does,)))
                else:
                    self._meet(kind, identifier, does)

    def _add(self, place: bytes, column: EffectColumn) -> None:
        changes = self._changes[column.kind.prefix]
        for identifier, does in zip(column.identifiers, column.does, strict=True):
            found = changes.get(identifier)
            changes[identifier] = _joined(found, place, does) if found else place + does

    def _meet(self, kind: Kind, identifier: int | str, fate: str) -> None:
        self._changes[kind.prefix].setdefault(identifier, b"")
        fates = self._fates[kind.prefix]
        if fate == GONE or (fate == FORGET and fates.get(identifier) != GONE):
            fates[identifier] = fate

    def writes(self) -> Iterator[Writes]:
        """The commands, in no order that matters: each value has one."""
        for kind in KINDS:
            fates, changes = self._fates[kind.prefix], self._changes[kind.prefix]
            keys = kind.keys(changes)
            data = self._applier.pack(kind, keys, changes.values())
            if fates:
                for at, identifier in enumerate(changes):
                    if fate := fates.get(identifier):
                        data[at] = (incremental.gone if fate == GONE else incremental.forget)(keys[at]).data
            yield Writes(kind, list(changes), keys, data)

    def complete(self, writes: Iterable[tuple[Kind, int | str]], replies: Iterable[object]) -> Effects[int]:
        """Takes in the replies for kinds and identifiers: loads what has to be loaded; how many values that were."""
        missing: list[Reference] = [
            (kind, _id(identifier))
            for (kind, identifier), reply in zip(writes, replies, strict=True)
            if reply == 0 and identifier not in self._fates[kind.prefix]
        ]
        if missing:
            yield from incremental.complete(missing, self._applier.token)
        return len(missing)


def apply(routed: Iterable[Routed]) -> Effects[int]:
    """Applies a batch, one effect after the other; how many values had to be loaded."""
    batch = Batch(routed)
    writes = list(batch.writes())
    commands = [Command(*pair) for each in writes for pair in zip(each.keys, each.data, strict=True)]
    if not commands:
        return 0
    replies = yield Redis(commands)
    return (yield from batch.complete([(each.kind, i) for each in writes for i in each.identifiers], replies))


def _joined(found: Changes, place: bytes, does: bytes) -> Changes:
    """A change behind those that were found."""
    if isinstance(found, bytes):
        if found.startswith(place):
            return found + does
        found = {found[: len(place)]: found}
    return found | {place: found.get(place, place) + does}


def _id(identifier: int | str) -> Id:
    return identifier if isinstance(identifier, int) else UUID(identifier)
