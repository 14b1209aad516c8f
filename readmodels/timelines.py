"""The home timeline: posts of the people whom a viewer follows, and the viewer's own.

Layout: `t:{<user id>}`, a list as in readmodels/entries.py. It exists while the timeline is *warm* (read within
FANLINE_TIMELINE_WARM_DAYS); pushes to a cold one do nothing (RPUSHX). It holds all that was posted, and what the viewer
may see is decided at read (readmodels/home_rules.py), so that a block, a mute, an unfollow or a delete needs no write
here and works backwards. Past the cap the oldest entries are cut and the header's floor tells where the database has to
go on. A list whose generation is not the one that readmodels/readiness.py gives is as good as absent.

The oracle, `HOME`, is what a read must equal.
"""

import secrets
from collections.abc import Sequence
from uuid import UUID

from fanline.ids import MAX_ID, pack_id
from fanline.resp import pack
from readmodels import generations
from readmodels.effects import Command, Effects, Query, Redis, call, command
from readmodels.entries import floor_and_entries
from readmodels.presence import gone

MODEL = "timelines"

BUILD_SECONDS = 60
"""An abandoned build is forgotten after this: far longer than its query takes, short enough to keep its list small."""

# Everybody whose posts the viewer sees, and everybody who is hidden from the viewer.
_PEOPLE = """
WITH mine AS (
  SELECT %(viewer)s::uuid AS author_id, true AS show_reblogs
  UNION ALL
  SELECT followee_id, show_reblogs FROM follows WHERE follower_id = %(viewer)s::uuid
), hidden AS (
  SELECT blocked_id AS id FROM blocks WHERE blocker_id = %(viewer)s::uuid
  UNION SELECT blocker_id FROM blocks WHERE blocked_id = %(viewer)s::uuid
  UNION SELECT muted_id FROM mutes
    WHERE muter_id = %(viewer)s::uuid AND (expires_at IS NULL OR expires_at > clock_timestamp())
)
"""

_VISIBLE = """
    p.author_id = m.author_id
    AND (p.visibility <> 'direct' OR p.author_id = %(viewer)s::uuid)
    AND (p.repost_of_id IS NULL OR m.show_reblogs)
    AND (p.in_reply_to_account_id IS NULL OR p.in_reply_to_account_id = p.author_id
         OR p.in_reply_to_account_id IN (SELECT author_id FROM mine))
    AND p.author_id NOT IN (SELECT id FROM hidden)
    AND (o.author_id IS NULL OR o.author_id NOT IN (SELECT id FROM hidden))
    AND NOT EXISTS (
      SELECT 1 FROM posts q JOIN mine n ON n.author_id = q.author_id
      WHERE q.repost_of_id = coalesce(p.repost_of_id, p.id) AND q.id > p.id AND n.show_reblogs
        AND (q.visibility <> 'direct' OR q.author_id = %(viewer)s::uuid)
        AND q.author_id NOT IN (SELECT id FROM hidden))
"""


def _home(order: str) -> str:
    return f"""{_PEOPLE}
SELECT c.id, c.repost_of_id FROM mine m CROSS JOIN LATERAL (
  SELECT p.id, p.repost_of_id FROM posts p LEFT JOIN posts o ON o.id = p.repost_of_id
  WHERE {_VISIBLE}
    AND p.id < %(below)s AND p.id > %(above)s
  ORDER BY p.id {order} LIMIT %(limit)s
) c
ORDER BY c.id {order} LIMIT %(limit)s
"""


HOME = _home("DESC")
"""The oracle: the newest `limit` posts below `below` and above `above`, newest first."""

HOME_ASCENDING = _home("ASC")
"""The same for `min_id`: the oldest `limit` posts above `above`, oldest first."""

# All that may ever be shown, with no rule applied: what a timeline holds.
EVERYTHING = """
WITH mine AS (
  SELECT %(viewer)s::uuid AS author_id
  UNION ALL
  SELECT followee_id FROM follows WHERE follower_id = %(viewer)s::uuid
)
SELECT c.id, c.repost_of_id FROM mine m CROSS JOIN LATERAL (
  SELECT p.id, p.repost_of_id FROM posts p
  WHERE p.author_id = m.author_id AND (p.visibility <> 'direct' OR p.author_id = %(viewer)s::uuid)
  ORDER BY p.id DESC LIMIT %(limit)s
) c
ORDER BY c.id DESC LIMIT %(limit)s
"""


def home_query(
    viewer: UUID, limit: int, *, max_id: int | None = None, since_id: int | None = None, min_id: int | None = None
) -> Query:
    """The oracle for one page; with `min_id` the rows come oldest first."""
    above = max(since_id or 0, min_id or 0)
    parameters = {"viewer": viewer, "below": max_id or MAX_ID, "above": above, "limit": limit}
    return Query(HOME if min_id is None else HOME_ASCENDING, parameters)


def timeline_key(viewer: UUID) -> bytes:
    """The key of a home timeline."""
    return generations.key(b"t", MODEL, str(viewer).encode())


def push_prefix(follower: bytes) -> bytes:
    """The part of `RPUSHX t:{follower} entry...` between the number of its arguments and the entries; see `pushes`."""
    key = timeline_key(UUID(bytes=follower))
    return b"$6\r\nRPUSHX\r\n$%d\r\n%s\r\n" % (len(key), key)


def pushes(prefixes: Sequence[bytes], entries: Sequence[bytes]) -> bytes:
    """The commands that append the same entries to the timelines with these prefixes, in the Redis protocol.

    One join, so that a delivery costs no work of Python's own. The replies are the lists' lengths with their headers,
    0 where a timeline is cold.
    """
    head = b"*%d\r\n" % (2 + len(entries))
    tail = b"".join(b"$%d\r\n%s\r\n" % (len(entry), entry) for entry in entries)
    return head + (tail + head).join(prefixes) + tail


def push(viewer: UUID, *entries: bytes) -> Command:
    """Appends entries if the timeline is warm; the reply is the list's length with its header, 0 if it is cold."""
    key = timeline_key(viewer)
    return Command(key, pack(b"RPUSHX", key, *entries))


def compact(viewer: UUID, cap: int) -> Command:
    """Cuts the list down to `cap` entries; the reply is how many were too many."""
    return call(b"timeline_compact", [timeline_key(viewer)], cap)


def is_warm(viewer: UUID) -> Command:
    """The reply is 1 if the timeline is warm or being built."""
    return command(timeline_key(viewer), b"EXISTS")


def read(viewer: UUID, newest: int | None = None) -> list[Command]:
    """Reads the header and the list (its `newest` items, which may include the header)."""
    key = timeline_key(viewer)
    return [command(key, b"LRANGE", 0, 0), command(key, b"LRANGE", 1 if newest is None else -newest, -1)]


def touch(viewer: UUID, warm_seconds: int) -> Command:
    """Keeps a complete timeline warm for so long from now; one that is being built is not to be touched."""
    return command(timeline_key(viewer), b"EXPIRE", warm_seconds, b"GT")


def backfill(viewer: UUID, recent_list: Sequence[bytes], cap: int) -> Command:
    """Merges an author's recent list, as read with its header, into a warm timeline."""
    header, entries = recent_list[0], recent_list[1:]
    return call(b"timeline_backfill", [timeline_key(viewer)], header[1:9], cap, *entries)


def build(viewer: UUID, generation: bytes, cap: int, warm_seconds: int) -> Effects[bool]:
    """Makes a cold timeline warm; False if somebody else is building it, it was lost meanwhile or the viewer is gone.

    The marker is placed before the database is asked: what commits later is pushed to the marked list, and what
    committed earlier is in the answer.
    """
    token = secrets.token_bytes(8)
    key = timeline_key(viewer)
    placed = yield Redis([call(b"timeline_begin", [key], token, generation, BUILD_SECONDS)])
    if not placed[0]:
        return False
    rows = yield Query(EVERYTHING, {"viewer": viewer, "limit": cap + 1})
    if not rows and (yield from gone([viewer])):
        # Of somebody who is gone nothing is kept (readmodels/departures.py).
        yield Redis([command(key, b"UNLINK")])
        return False
    floor, entries = floor_and_entries(rows, cap)
    merged = yield Redis([call(b"timeline_merge", [key], token, pack_id(floor), cap, warm_seconds, *entries)])
    return bool(merged[0])
