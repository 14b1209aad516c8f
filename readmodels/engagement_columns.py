"""What runs of likes, bookmarks and follows do to counts and flags: `engagement.effects_of`, a column at a time.

These are the tables in which storms come. A row a time, Python costs more than Redis takes for what is sent to it.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from fanline.change_columns import RowChanges
from readmodels.counts import ACCOUNT_COUNTS, BOOKMARKS, FOLLOWERS, FOLLOWING, LIKES, STATUS_COUNTS
from readmodels.engagement import EffectColumn
from readmodels.flags import BOOKMARKED, FAVOURITED, FLAGS

_OF_POSTS = {"likes": (LIKES, FAVOURITED), "bookmarks": (BOOKMARKS, BOOKMARKED)}
# A change as `incremental.when`, eight bytes for the row, and `incremental.what` write it.
_CHANGE = np.dtype(
    [
        *[("commit", ">u8"), ("own", ">u8"), ("transaction", ">u4"), ("row", ">u8")],
        *[("field", "u1"), ("adds", "u1"), ("day", ">u4")],
    ]
)
_UUID_CHARACTERS = 36
# The random end of an id, as `engagement.effects_of` takes it.
_SHORT = [*range(19, 23), *range(24, 36)]
_SHORT_BYTES = 8

Numbers = npt.NDArray[np.uint64]


def effects_of_columns(changes: RowChanges) -> list[EffectColumn] | None:
    """The effects of rows; None if they are of another table, or one of them is not as it should be."""
    fields = _OF_POSTS.get(changes.table)
    if fields is not None:
        return _of_posts(changes, *fields)
    return _of_follows(changes) if changes.table == "follows" else None


def _of_posts(changes: RowChanges, count: int, flag: int) -> list[EffectColumn] | None:
    users, posts = changes.texts("user_id"), changes.numbers("post_id")
    if users is None or posts is None or posts.min() < 0 or (people := _short(users)) is None:
        return None
    return [
        EffectColumn(STATUS_COUNTS, posts.tolist(), _does(changes, people, count)),
        EffectColumn(FLAGS, users, _does(changes, posts, flag)),
    ]


def _of_follows(changes: RowChanges) -> list[EffectColumn] | None:
    followers, followees = changes.texts("follower_id"), changes.texts("followee_id")
    if followers is None or followees is None:
        return None
    by, of = _short(followers), _short(followees)
    if by is None or of is None:
        return None
    # One column for both, as a value's changes of one place must stay in their order.
    people = chain.from_iterable(zip(followees, followers, strict=True))
    does = chain.from_iterable(zip(_does(changes, by, FOLLOWERS), _does(changes, ~of, FOLLOWING), strict=True))
    return [EffectColumn(ACCOUNT_COUNTS, list(people), list(does))]


def _does(changes: RowChanges, rows: npt.NDArray[Any], field: int) -> list[bytes]:
    """The changes of a field, each for its row."""
    made = np.zeros(len(changes), _CHANGE)
    made["commit"], made["own"] = changes.positions
    made["transaction"], made["adds"] = changes.transactions, changes.adds
    made["row"], made["field"] = rows, field
    together, size = made.tobytes(), _CHANGE.itemsize
    return [together[at : at + size] for at in range(0, len(together), size)]


def _short(users: Sequence[str]) -> Numbers | None:
    """What tells each user from the others of a place, as a number; None if one is no uuid."""
    if set(map(len, users)) != {_UUID_CHARACTERS}:
        return None
    try:
        characters = np.frombuffer("".join(users).encode("ascii"), np.uint8).reshape(-1, _UUID_CHARACTERS)
        ends = bytes.fromhex(characters[:, _SHORT].tobytes().decode())
    except ValueError:
        return None
    # White space is no hexadecimal digit, but is passed over.
    return np.frombuffer(ends, ">u8") if len(ends) == _SHORT_BYTES * len(users) else None
