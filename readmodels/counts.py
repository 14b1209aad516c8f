"""Counts of accounts and statuses, kept by adding row changes (readmodels/incremental.py).

Payloads, numbers of 4 bytes each:

    c:{<post id>}   replies that anybody may see, reposts, likes, bookmarks
    n:{<user id>}   followers, followed, posts that are not direct; the newest of these posts (id, 8; zero: none) and
                    the day of its creation, in days since 1970

A post's visibility and what it answers or reposts never change while the post counts: an edit keeps both, and a reply
loses its parent only with the parent.
"""

import struct
from datetime import UTC, date, datetime

from readmodels.entity_queries import ACCOUNT_COUNTS_BY_ID, STATUS_COUNTS_BY_ID
from readmodels.incremental import SNAPSHOT, Kind, Row

REPLIES, REPOSTS, LIKES, BOOKMARKS = range(4)
FOLLOWERS, FOLLOWING, STATUSES = range(3)

STATUS_COUNTS_SQL = f"""
SELECT counted.*, (SELECT count(*) FROM bookmarks b WHERE b.post_id = counted.id) AS bookmarks_count,
       {SNAPSHOT}
FROM ({STATUS_COUNTS_BY_ID}) counted
"""

ACCOUNT_COUNTS_SQL = f"""
SELECT counted.*,
       (SELECT p.id FROM posts p WHERE p.author_id = counted.id AND p.visibility <> 'direct'
        ORDER BY p.id DESC LIMIT 1) AS newest_id,
       {SNAPSHOT}
FROM ({ACCOUNT_COUNTS_BY_ID}) counted
"""

_STATUS = struct.Struct(">4I")
_ACCOUNT = struct.Struct(">3IQI")
_EPOCH = date(1970, 1, 1).toordinal()


def day_of(moment: datetime) -> int:
    """Days from 1970 to a time, in UTC."""
    return moment.astimezone(UTC).toordinal() - _EPOCH


def day_of_text(moment: str) -> int:
    """The same for a time in UTC as row changes write it."""
    return date.fromisoformat(moment[:10]).toordinal() - _EPOCH


def _status_payload(row: Row) -> bytes:
    return _STATUS.pack(
        row["replies_count"], row["reblogs_count"], row["favourites_count"], row["bookmarks_count"]
    )  # fmt: skip


def _account_payload(row: Row) -> bytes:
    last = row["last_status_at"]
    return _ACCOUNT.pack(
        row["followers_count"],
        row["following_count"],
        row["statuses_count"],
        row["newest_id"] or 0,
        day_of(last) if last is not None else 0,
    )


def status_members(payload: bytes) -> bytes:
    """The members of `entities.status_counts` as JSON, without braces; empty for an empty payload."""
    if not payload:
        return b""
    return b'"replies_count":%d,"reblogs_count":%d,"favourites_count":%d' % _STATUS.unpack(payload)[:3]


def account_members(payload: bytes) -> bytes:
    """The members of `entities.account_counts` as JSON, without braces; empty for an empty payload."""
    if not payload:
        return b""
    followers, following, statuses, newest, day = _ACCOUNT.unpack(payload)
    last = b'"%b"' % date.fromordinal(day + _EPOCH).isoformat().encode() if newest else b"null"
    return b'"followers_count":%d,"following_count":%d,"statuses_count":%d,"last_status_at":%b' % (
        followers, following, statuses, last,
    )  # fmt: skip


STATUS_COUNTS = Kind("status_counts", b"c", STATUS_COUNTS_SQL, _status_payload, b"C")
ACCOUNT_COUNTS = Kind("account_counts", b"n", ACCOUNT_COUNTS_SQL, _account_payload, b"N")
