"""What Redis knows of places in a database's log, forgotten after a move to another database.

A change of the new database may stand at a lower place than one of the old database that was applied, and would be
taken for a replay. Two read models keep places; the versions of all others are counted in Redis itself.

    engagement   values with the place they were loaded at and the places that were applied to them. They are deleted:
                 a missing value is loaded from the database by whoever meets it, a flow or a reader
    followers    `last<partition>` of each author. These fields are deleted; followers stay, as they are the same people

Nobody may write or load meanwhile, and everything of the old database must have been applied before.
"""

from collections.abc import Iterator

from audit.stores import Stores
from readmodels import engagement, followers, generations, incremental
from readmodels.effects import Command, command
from rebuild.state import load

FLOWS = ("engagement", "followers")
"""The dataflows that write them."""


def sentences(stores: Stores) -> list[str]:
    """What `forget` will do."""
    values, authors = sum(map(len, _values(stores))), sum(map(len, _authors(stores)))
    return [
        f"engagement: {values:,} counts and flags are deleted; each is loaded from the database when it is next met.",
        f"followers: the places of {authors:,} authors are forgotten; their followers stay.",
    ]


def forget(stores: Stores) -> None:
    """Forget all places; repeating it changes nothing."""
    for keys in _values(stores):
        stores.redis([command(key, b"UNLINK") for key in keys])
    for keys in _authors(stores):
        fields = stores.redis([command(key, b"HKEYS") for key in keys])
        stores.redis(list(_forget_places(dict(zip(keys, fields, strict=True)))))


def _forget_places(fields: dict[bytes, list[bytes]]) -> Iterator[Command]:
    for key, names in fields.items():
        places = [name for name in names if name.startswith(followers.PLACE)]
        if places:
            yield command(key, b"HDEL", *places)


def _values(stores: Stores) -> Iterator[list[bytes]]:
    for number in _generations(stores, incremental.MODEL):
        for kind in engagement.KINDS:
            yield from stores.scan(generations.pattern(kind.prefix, number))


def _authors(stores: Stores) -> Iterator[list[bytes]]:
    for number in _generations(stores, followers.MODEL):
        for keys in stores.scan(generations.pattern(b"f", number)):
            # Chunks of followers have a number behind the braces.
            yield [key for key in keys if key.endswith(b"}")]


def _generations(stores: Stores, model: str) -> list[int]:
    state = load(stores, model)
    return [state.serving] if state.written is None else [state.serving, state.written]
