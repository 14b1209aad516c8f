"""Inboxes: a person's newest notifications, ready to be read.

Layout: `i:{<user id>}`, a sorted set that exists while its owner reads notifications (FANLINE_TIMELINE_WARM_DAYS):

    header   score -1    b"F" + floor (8) + marker (8)   every notification with an id above the floor is here; the
                                                         marker is the last id that its owner has read
                         b"B" or b"D" + token (8)        being filled; D: a change came meanwhile, so begin again
    member   score ms    id (8), type (1), ms of `created_at` (6), post (8, zero: none), sender (16)

The score is the milliseconds in the id, and members of one score sort by their bytes: the set is in the order of the
ids. Numbers are big-endian, the type is its place in `notifications.TYPES`. Groups need no storage: a group's key is a
function of a member. Unread are the members above the marker.

Nothing here is counted or remembered: whoever hears that a row has changed asks the database what it is now
(`apply`), so duplicates, replays and reordering change nothing. Who finds no inbox fills one (`fill`): first the
marker of the fill is placed, then the database is asked, then the answer is written if no change came in between. A
change that was applied before the marker was placed was visible to queries before, so the answer has it.

The oracle is `notifications.LISTED`.
"""

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from fanline.ids import pack_id
from readmodels import generations
from readmodels.effects import Command, Effects, Query, Redis, call, command
from readmodels.notifications import COLUMNS, LISTED, TYPES, group_key
from readmodels.presence import gone

MODEL = "inboxes"
FILL_SECONDS = 60
FILL_ATTEMPTS = 5
"""A fill that meets a change begins again; after so many the reader is answered from the database as it was."""

COMPLETE = b"F"

MARKERS = """
SELECT user_id, last_read_id FROM markers WHERE user_id = ANY(%(users)s::uuid[]) AND timeline = 'notifications'
"""

LISTED_OF = f"SELECT {COLUMNS} FROM notifications n WHERE n.id = ANY(%(ids)s::bigint[]) AND n.dismissed_at IS NULL"

_TYPE_CODES = {name: code for code, name in enumerate(TYPES)}
_NOBODY = bytes(16)
_MEMBER_BYTES = 39


class Item(NamedTuple):
    """A notification in an inbox."""

    id: int
    type: str
    created_ms: int
    post_id: int | None
    from_account_id: UUID | None

    @property
    def created_at(self) -> datetime:
        """The time that the entity shows."""
        return datetime.fromtimestamp(self.created_ms / 1000, UTC)

    @property
    def group_key(self) -> str:
        """The group that it is shown in."""
        return group_key(self.type, self.id, self.post_id, self.created_at)


class Inbox(NamedTuple):
    """An inbox as it was read: complete above `floor`, newest first."""

    floor: int
    marker: int
    items: Sequence[Item]


class Changed(NamedTuple):
    """Rows that have changed: a person's notification, or with id 0 their marker."""

    user_id: UUID
    id: int


def inbox_key(user_id: UUID) -> bytes:
    """The key of an inbox."""
    return generations.key(b"i", MODEL, str(user_id).encode())


def read(user_id: UUID) -> Command:
    """Reads an inbox whole; `parse` takes the reply."""
    return command(inbox_key(user_id), b"ZRANGE", 0, -1)


def touch(user_id: UUID, warm_seconds: int) -> Command:
    """Keeps an inbox for so long from now; one that is being filled is not to be touched."""
    return command(inbox_key(user_id), b"EXPIRE", warm_seconds, b"GT")


def parse(members: Sequence[bytes]) -> Inbox | None:
    """The inbox in the reply to `read`; None when it is not there or not complete."""
    if not members or members[0][:1] != COMPLETE:
        return None
    header = members[0]
    items = [unpack(member) for member in reversed(members[1:])]
    return Inbox(int.from_bytes(header[1:9]), int.from_bytes(header[9:17]), items)


def pack(item: Item) -> bytes:
    """The bytes of a member."""
    return b"".join(
        (
            pack_id(item.id),
            _TYPE_CODES[item.type].to_bytes(1),
            item.created_ms.to_bytes(6),
            pack_id(item.post_id or 0),
            item.from_account_id.bytes if item.from_account_id is not None else _NOBODY,
        )
    )


def unpack(member: bytes) -> Item:
    """The notification in a member's bytes."""
    sender = member[23:_MEMBER_BYTES]
    return Item(
        int.from_bytes(member[:8]),
        TYPES[member[8]],
        int.from_bytes(member[9:15]),
        int.from_bytes(member[15:23]) or None,
        UUID(bytes=sender) if sender != _NOBODY else None,
    )


def item_of(row: Mapping[str, Any]) -> Item:
    """The notification in a row of `notifications.COLUMNS`."""
    created_ms = round(row["created_at"].timestamp() * 1_000_000) // 1000
    return Item(row["id"], row["type"], created_ms, row["post_id"], row["from_account_id"])


def apply(changes: Iterable[Changed], cap: int, slack: int, departed: Collection[UUID] = ()) -> Effects[None]:
    """Makes the inboxes that are there show what the changed rows are now; repeating it changes nothing.

    To be called when queries see the changes. An inbox is cut to its newest `cap` when it has `slack` more. The inboxes
    of people who have left go.
    """
    if departed:
        yield Redis([command(inbox_key(user), b"UNLINK") for user in departed])
    by_user: dict[UUID, set[int]] = {}
    for change in changes:
        by_user.setdefault(change.user_id, set()).add(change.id)
    if not by_user:
        return
    there = yield Redis([command(inbox_key(user), b"EXISTS") for user in by_user])
    warm = {user: by_user[user] for user, exists in zip(by_user, there, strict=True) if exists}
    if not warm:
        return
    ids = [id for changed in warm.values() for id in changed if id]
    rows = (yield Query(LISTED_OF, {"ids": ids})) if ids else ()
    shown = {row["id"]: item_of(row) for row in rows if not row["filtered"]}
    readers = [user for user, changed in warm.items() if 0 in changed]
    found = (yield Query(MARKERS, {"users": readers})) if readers else ()
    markers = {row["user_id"]: row["last_read_id"] for row in found}
    yield Redis(
        [
            _apply(user, changed, shown, markers.get(user, 0) if 0 in changed else None, cap, slack)
            for user, changed in warm.items()
        ]
    )


def _apply(
    user: UUID, changed: Collection[int], shown: Mapping[int, Item], marker: int | None, cap: int, slack: int
) -> Command:
    removed = [pack_id(id) for id in changed if id and id not in shown]
    added = [pack(shown[id]) for id in changed if id in shown]
    new_marker = b"" if marker is None else pack_id(marker)
    return call(b"inbox_apply", [inbox_key(user)], new_marker, cap, slack, len(removed), *removed, *added)


def load(user_id: UUID, cap: int) -> Effects[Inbox]:
    """What an inbox would be, straight from the database: its newest `cap`, and the marker."""
    rows = yield Query(LISTED, {"user_id": user_id, "limit": cap + 1})
    markers = yield Query(MARKERS, {"users": [user_id]})
    items = [item_of(row) for row in rows]
    floor = items[cap].id if len(items) > cap else 0
    return Inbox(floor, markers[0]["last_read_id"] if markers else 0, items[:cap])


def fill(user_id: UUID, cap: int, warm_seconds: int) -> Effects[Inbox]:
    """Reads an inbox from the database and writes it; gives what it has read.

    It is not written when somebody else fills it, or when changes keep coming: the next reader fills it then.
    """
    key = inbox_key(user_id)
    for _ in range(FILL_ATTEMPTS):
        token = secrets.token_bytes(8)
        placed = yield Redis([call(b"inbox_begin", [key], token, FILL_SECONDS)])
        loaded = yield from load(user_id, cap)
        if not placed[0]:
            return loaded
        if not loaded.items and (yield from gone([user_id])):
            yield Redis([command(key, b"UNLINK")])
            return loaded
        header = COMPLETE + pack_id(loaded.floor) + pack_id(loaded.marker)
        written = yield Redis(
            [call(b"inbox_fill", [key], token, header, warm_seconds, *map(pack, loaded.items))]
        )  # fmt: skip
        if written[0]:
            return loaded
    return loaded
