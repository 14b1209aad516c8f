"""Entries of timelines and of authors' recent lists: the bytes in Redis and their meaning.

A list is one header and any number of entries, in any order and with duplicates; readers sort and remove them, so
that a write may be repeated or come late.

    header   b"F" + floor (8) + generation (8)               every entry with an id above `floor` is here
             b"B" + token (8) + floor (8) + generation (8)   being built; not to be read
    entry    id (8)                                          a post
             id (8) + original id (8)                        a repost, with the id of the post that it repeats

Numbers are big-endian. The same bytes are read and written by functions/timelines.lua.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fanline.ids import pack_id

NO_GENERATION = bytes(8)
"""Recent lists are restored in place and have no generations."""

COMPLETE = b"F"
BUILDING = b"B"


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A post in a list; `original` is the id of the repeated post, or the post's own id when it is no repost."""

    id: int
    original: int

    def pack(self) -> bytes:
        """The entry's bytes."""
        return pack_entry(self.id, self.original)


def pack_entry(post_id: int, original: int | None) -> bytes:
    """The bytes of an entry; `original` is None, 0 or the post's own id when it is no repost."""
    if not original or original == post_id:
        return pack_id(post_id)
    return pack_id(post_id) + pack_id(original)


def unpack_entry(data: bytes) -> Entry:
    """The entry in some bytes."""
    post_id = int.from_bytes(data[:8])
    return Entry(post_id, int.from_bytes(data[8:16]) if len(data) == 16 else post_id)


def newest_first(items: Iterable[bytes]) -> list[Entry]:
    """The entries among a list's items, newest first, each once; headers are left out."""
    # Eight big-endian bytes sort like their number, so sorting the bytes is enough, and faster.
    return [unpack_entry(item) for item in sorted({item for item in items if len(item) in (8, 16)}, reverse=True)]


def complete_above(header: bytes | None, generation: bytes) -> int | None:
    """The floor of a readable list; None when there is no list, it is being built, or it is of another generation."""
    if header is None or header[:1] != COMPLETE or header[9:] != generation:
        return None
    return int.from_bytes(header[1:9])


def floor_and_entries(rows: Sequence[Mapping[str, Any]], cap: int) -> tuple[int, list[bytes]]:
    """Packs the newest rows (id, repost_of_id) of a query that asked for cap + 1 of them, newest first.

    Returns the floor (0 when the query found no more than `cap`) and the entries.
    """
    floor = rows[cap]["id"] if len(rows) > cap else 0
    return floor, [pack_entry(row["id"], row["repost_of_id"]) for row in rows[:cap]]
