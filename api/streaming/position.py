"""Where a client is in a stream: the id of each event, which the client gives back to get what it has missed.

Posts get their ids before they are committed, so one with a lower id may come after one with a higher id, and
notifications carry the time of their cause. "Everything above the last id" would lose those. A position therefore is a
floor, below which nothing is missing any more, and the ids above it that were sent: what is missing is everything
above the floor but these. The ids of the last seconds are kept, `KEPT` at most.

As text it is URL-safe base64 of a MessagePack array. A plain decimal id is taken as well: everything above it.
"""

from bisect import insort
from dataclasses import dataclass, field

import msgspec

from api.errors import bad_request
from fanline.ids import SEQUENCE_BITS

KEPT = 64
"""Ids that a position names: some hundred bytes an event."""

POST_MARGIN_MS = 10_000
"""Longer than a request takes from making a post's id to its commit."""

NOTIFICATION_MARGIN_MS = 600_000
"""Longer than a flow takes to make a notification of what has happened, short of an outage."""

MAX_TEXT = 2_048
_VERSION = 1
_Text = tuple[int, int, int, list[int], int, list[int]]


@dataclass(slots=True)
class Window:
    """Which ids were sent: all that matter up to `floor`, and those in `ids` (sorted)."""

    margin_ms: int
    floor: int = 0
    ids: list[int] = field(default_factory=list)

    def add(self, identifier: int) -> None:
        """Note that this one was sent."""
        if identifier <= self.floor or identifier in self.ids:
            return
        insort(self.ids, identifier)
        horizon = self.ids[-1] - (self.margin_ms << SEQUENCE_BITS)
        while len(self.ids) > KEPT or self.ids[0] < horizon:
            self.floor = self.ids.pop(0)

    def has(self, identifier: int) -> bool:
        """Whether this one is known to have been sent; one below the floor may be new all the same."""
        return identifier in self.ids


@dataclass(slots=True)
class Position:
    """Where one client is in one stream. `log_ms` is the commit time of the newest event, 0 if unknown."""

    posts: Window = field(default_factory=lambda: Window(POST_MARGIN_MS))
    notifications: Window = field(default_factory=lambda: Window(NOTIFICATION_MARGIN_MS))
    log_ms: int = 0

    def text(self) -> str:
        """The event id."""
        parts = (
            _VERSION,
            self.log_ms,
            self.posts.floor,
            _deltas(self.posts),
            self.notifications.floor,
            _deltas(self.notifications),
        )
        return msgspec.json.encode(msgspec.msgpack.encode(parts)).decode()[1:-1].translate(_URL_SAFE)


_URL_SAFE = str.maketrans("+/", "-_", "=")
_STANDARD = str.maketrans("-_", "+/")


def new_position(now_id: int) -> Position:
    """The position of a client that wants what comes from now on; `now_id` is the first id of this millisecond."""
    position = Position()
    # What is committed from now on may have got its id a moment ago.
    position.posts.floor = now_id - (POST_MARGIN_MS << SEQUENCE_BITS)
    position.notifications.floor = now_id
    return position


def parse_position(text: str) -> Position:
    """The position in a `Last-Event-ID`; raises `ApiError` 400."""
    if text.isascii() and text.isdigit() and len(text) <= 19:
        plain = Position()
        plain.posts.floor = plain.notifications.floor = int(text)
        return plain
    try:
        if len(text) > MAX_TEXT:
            raise ValueError("too long")
        padded = text.translate(_STANDARD) + "=" * (-len(text) % 4)
        packed = msgspec.json.decode(b'"%s"' % padded.encode("ascii"), type=bytes)
        version, log_ms, floor, ids, notification_floor, notification_ids = msgspec.msgpack.decode(packed, type=_Text)
        if version != _VERSION:
            raise ValueError("another version")
    except (ValueError, msgspec.MsgspecError) as error:
        raise bad_request("The last event id is not one of this server's") from error
    return Position(
        Window(POST_MARGIN_MS, floor, _ids(floor, ids)),
        Window(NOTIFICATION_MARGIN_MS, notification_floor, _ids(notification_floor, notification_ids)),
        log_ms,
    )


def _deltas(window: Window) -> list[int]:
    before = window.floor
    deltas = []
    for identifier in window.ids:
        deltas.append(identifier - before)
        before = identifier
    return deltas


def _ids(floor: int, deltas: list[int]) -> list[int]:
    ids = []
    for delta in deltas:
        floor += delta
        ids.append(floor)
    return sorted(ids)
