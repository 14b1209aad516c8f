"""An author's own newest posts, from which followers and readers catch up.

Layout: `r:{<user id>}`, a list as in readmodels/entries.py, without direct posts. It is read when somebody starts to
follow the author (their timeline is backfilled) and by readers when the author is a celebrity.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from fanline.ids import pack_id
from readmodels import generations
from readmodels.effects import Command, call, command
from readmodels.entries import floor_and_entries
from readmodels.followers import MODEL, facts_key

# The newest posts of some authors, for a rebuild: one row more than the cap, so that a cut shows.
NEWEST_BY_AUTHOR = """
SELECT a.id AS author_id, p.id, p.repost_of_id
FROM unnest(%(authors)s::uuid[]) AS a(id)
CROSS JOIN LATERAL (
  SELECT id, repost_of_id FROM posts
  WHERE author_id = a.id AND visibility <> 'direct'
  ORDER BY id DESC LIMIT %(limit)s
) p
ORDER BY a.id, p.id DESC
"""


def recent_key(author: UUID) -> bytes:
    """The key of an author's recent list."""
    return generations.key(b"r", MODEL, str(author).encode())


def add(author: UUID, entry: bytes, cap: int, slack: int) -> Command:
    """Adds a post; the reply is `[state, chunks]` of the author's followers, read after the post is there."""
    return call(b"recent_add", [recent_key(author), facts_key(author)], entry, cap, slack)


def read(author: UUID) -> Command:
    """Reads the whole list, header first."""
    return command(recent_key(author), b"LRANGE", 0, -1)


def restore(author: UUID, rows: Sequence[Mapping[str, Any]], cap: int) -> Command:
    """Merges rows of `NEWEST_BY_AUTHOR`, newest first."""
    floor, entries = floor_and_entries(rows, cap)
    return call(b"recent_restore", [recent_key(author)], pack_id(floor), cap, *entries)
