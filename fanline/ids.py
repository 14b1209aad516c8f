"""Identifiers of things that are listed by time: 64 bits, `milliseconds << 16 | sequence`.

They sort by creation time, need no database sequence, and fit Mastodon's rule that a status id is a decimal
string which sorts by time. The 16 sequence bits start at a random value each millisecond, so that several API
processes rarely meet; the primary key settles it when they do.
"""

import secrets

from fanline.clock import Clock, SystemClock

SEQUENCE_BITS = 16
MAX_ID = (1 << 63) - 1


class TimeOrderedIds:
    """Makes strictly increasing identifiers within one process."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._last = 0

    def next(self) -> int:
        """A new identifier, greater than every one made before by this object."""
        candidate = self._clock.now_ms() << SEQUENCE_BITS | secrets.randbits(SEQUENCE_BITS - 1)
        self._last = max(candidate, self._last + 1)
        return self._last


def created_ms(identifier: int) -> int:
    """Milliseconds since the Unix epoch at which the identifier was made."""
    return identifier >> SEQUENCE_BITS


def first_id_at(ms: int) -> int:
    """The smallest identifier that can have been made at the given millisecond."""
    return ms << SEQUENCE_BITS


def pack_id(identifier: int) -> bytes:
    """The eight big-endian bytes of an identifier; they sort like the number."""
    return identifier.to_bytes(8)


def unpack_id(data: bytes) -> int:
    """The identifier in eight big-endian bytes."""
    return int.from_bytes(data)
