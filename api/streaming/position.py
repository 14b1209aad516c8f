"""Where a client is in a stream: the id of each event, which the client gives back to get what it has missed.

Posts get their ids before they are committed, so one with a lower id may come after one with a higher id. "Everything
above the last id" would lose those. A position therefore is a floor, below which nothing is missing any more, and the
ids above it that were sent: what is missing is everything above the floor but these. The ids of the last seconds are
kept, `KEPT` at most.

The ids of notifications carry the time of their cause, and a flow that lags stores them minutes later. So their floor
is a time at which they were stored, whatever their ids, and what is missing is everything that was stored since but
those that were sent. `KEPT_ARRIVALS` of the last seconds are kept; of more, the others are sent again.

As text it is URL-safe base64 of a MessagePack array, below 1,500 characters. A plain decimal id is taken as well:
everything above it, and every notification that was stored since its time.
"""

from bisect import insort
from dataclasses import dataclass, field

import msgspec

from api.errors import bad_request
from fanline.ids import MAX_ID, SEQUENCE_BITS, created_ms, first_id_at

KEPT = 64
"""Ids of posts that a position names: some hundred bytes an event."""

KEPT_ARRIVALS = 48
"""Notifications that a position names."""

POST_MARGIN_MS = 10_000
"""Longer than a request takes from making a post's id to its commit."""

ARRIVAL_MARGIN_MS = 10_000
"""Longer than a transaction takes that stores notifications: their rows carry the time of its beginning."""

MAX_TEXT = 2_048
_VERSION = 2
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
class Arrivals:
    """Which notifications were sent: of those stored since `floor_ms` the ones in `ids`, by when they were stored."""

    floor_ms: int = 0
    ids: dict[int, int] = field(default_factory=dict)

    def add(self, identifier: int, stored_ms: int) -> None:
        """Note that this one was sent."""
        if stored_ms < self.floor_ms:
            return
        self.ids[identifier] = stored_ms
        self.floor_ms = max(self.floor_ms, stored_ms - ARRIVAL_MARGIN_MS)
        kept = sorted((ms, each) for each, ms in self.ids.items() if ms >= self.floor_ms)
        # The floor stays where more have to be forgotten: these are sent again, and none is lost.
        self.ids = {each: ms for ms, each in kept[-KEPT_ARRIVALS:]}

    def has(self, identifier: int) -> bool:
        """Whether this one is known to have been sent."""
        return identifier in self.ids


@dataclass(slots=True)
class Position:
    """Where one client is in one stream. `log_ms` is the commit time of the newest event, 0 if unknown."""

    posts: Window = field(default_factory=lambda: Window(POST_MARGIN_MS))
    notifications: Arrivals = field(default_factory=Arrivals)
    log_ms: int = 0

    def text(self) -> str:
        """The event id."""
        parts = (
            _VERSION,
            self.log_ms,
            self.posts.floor,
            _deltas(self.posts),
            self.notifications.floor_ms,
            [part for each, ms in self.notifications.ids.items() for part in (each, ms - self.notifications.floor_ms)],
        )
        return msgspec.json.encode(msgspec.msgpack.encode(parts)).decode()[1:-1].translate(_URL_SAFE)


_URL_SAFE = str.maketrans("+/", "-_", "=")
_STANDARD = str.maketrans("-_", "+/")


def new_position(now_ms: int) -> Position:
    """The position of a client that wants what comes from now on."""
    position = Position()
    # What is committed from now on may have got its id, and its time, a moment ago.
    position.posts.floor = first_id_at(now_ms - POST_MARGIN_MS)
    position.notifications.floor_ms = now_ms - ARRIVAL_MARGIN_MS
    return position


def parse_position(text: str) -> Position:
    """The position in a `Last-Event-ID`; raises `ApiError` 400."""
    if text.isascii() and text.isdigit() and len(text) <= 19:
        plain = Position()
        plain.posts.floor = int(text)
        plain.notifications = Arrivals(created_ms(int(text)), {int(text): created_ms(int(text))})
        return plain
    try:
        if len(text) > MAX_TEXT:
            raise ValueError("too long")
        padded = text.translate(_STANDARD) + "=" * (-len(text) % 4)
        packed = msgspec.json.decode(b'"%s"' % padded.encode("ascii"), type=bytes)
        version, log_ms, floor, ids, floor_ms, arrivals = msgspec.msgpack.decode(packed, type=_Text)
        if version != _VERSION:
            raise ValueError("another version")
        if not (0 <= floor <= MAX_ID and 0 <= floor_ms <= created_ms(MAX_ID)):
            raise ValueError("no time of a post")
    except (ValueError, msgspec.MsgspecError) as error:
        raise bad_request("The last event id is not one of this server's") from error
    return Position(
        Window(POST_MARGIN_MS, floor, _ids(floor, ids)),
        Arrivals(
            floor_ms, {each: floor_ms + since for each, since in zip(arrivals[::2], arrivals[1::2], strict=False)}
        ),
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
