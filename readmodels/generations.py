"""Generations: a read model can be built again beside the one that serves, and take its place at once.

Every key of a read model is `<prefix>:{<id>}` in generation 0 and `<prefix>:<generation>{<id>}` in the others, so that
generations share slots, hash tags and the prefixes that the API has Redis track. Which generations there are:

    generations:{<model>}   hash: serving (number; absent: 0), written (another one that is kept up to date as well;
                            absent: none), next (the highest number used so far), and what the rebuild notes (step,
                            cursor, done, total: rebuild/state.py)
    rebuilding:{<model>}    somebody rebuilds it (rebuild/lease.py)

Flows look at the hash before each batch and apply the batch to every generation; readers use the serving one. The hash
is lost with the data it tells of: generation 0 is then empty like any other, and is filled like any other.

Keys are made by functions without a generation of their own: the process serves one (`serve`), and whoever works on
another says so (`using`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from readmodels.effects import Command, command

MODELS = (
    "cards",
    "relations",
    "engagement",
    "followers",
    "timelines",
    "inboxes",
    "aggregates",
)
"""The read models that have generations."""

_serving: dict[str, int] = {}
_using: ContextVar[Mapping[str, int] | None] = ContextVar("generations", default=None)


@dataclass(frozen=True, slots=True)
class Generations:
    """The generations of a read model: the one that readers use, and another that flows write as well."""

    serving: int = 0
    written: int | None = None

    @property
    def all(self) -> tuple[int, ...]:
        """Every generation that is kept up to date, the serving one first."""
        return (self.serving,) if self.written is None else (self.serving, self.written)


def current(model: str) -> int:
    """The generation whose keys are made now."""
    used = _using.get()
    return _serving.get(model, 0) if used is None or model not in used else used[model]


def key(prefix: bytes, model: str, identifier: bytes) -> bytes:
    """`<prefix>:<generation>{<identifier>}`."""
    generation = current(model)
    return b"%s:{%s}" % (prefix, identifier) if not generation else b"%s:%d{%s}" % (prefix, generation, identifier)


def pattern(prefix: bytes, generation: int) -> bytes:
    """The glob of all keys with a prefix in one generation."""
    return b"%s:%s{*" % (prefix, b"%d" % generation if generation else b"")


def identifier_of(key: bytes) -> bytes:
    """The identifier in a key, whatever its generation."""
    return key[key.index(b"{") + 1 : key.rindex(b"}")]


def serve(generations: Mapping[str, int]) -> bool:
    """Make this process use these generations by default; whether that changed anything."""
    changed = {model: number for model, number in generations.items() if _serving.get(model, 0) != number}
    _serving.update(changed)
    return bool(changed)


@contextmanager
def using(model: str, generation: int) -> Iterator[None]:
    """Make keys of another generation of a model within the block, on this thread or task only."""
    token = _using.set({**(_using.get() or {}), model: generation})
    try:
        yield
    finally:
        _using.reset(token)


def hash_key(model: str) -> bytes:
    """The key of the hash that tells the generations."""
    return b"generations:{%s}" % model.encode()


def lease_key(model: str) -> bytes:
    """The key of whoever rebuilds the model."""
    return b"rebuilding:{%s}" % model.encode()


def read(model: str) -> Command:
    """Reads the generations; `parse` takes the reply."""
    return command(hash_key(model), b"HMGET", b"serving", b"written")


def parse(reply: Sequence[bytes | None]) -> Generations:
    """The generations in the reply to `read`."""
    serving, written = reply
    return Generations(int(serving or 0), None if written is None else int(written))


def read_all(model: str) -> Command:
    """Reads the whole hash: the generations and what a rebuild has noted."""
    return command(hash_key(model), b"HGETALL")


def note(model: str, **fields: str | int) -> Command:
    """Notes something of a rebuild, or sets `serving` and `written` (at once, so that readers see both or none)."""
    pairs = [part for name, value in fields.items() for part in (name.encode(), str(value).encode())]
    return command(hash_key(model), b"HSET", *pairs)


def forget(model: str, *fields: str) -> Command:
    """Takes fields away; without `written` flows write the serving generation only."""
    return command(hash_key(model), b"HDEL", *(field.encode() for field in fields))


def next_number(model: str) -> Command:
    """A number that no generation of the model has had."""
    return command(hash_key(model), b"HINCRBY", b"next", 1)
