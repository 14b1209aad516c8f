"""What a viewer's relations decide when a timeline is read.

Layout (sparse documents, see readmodels/documents.py; numbers are big-endian, accounts 16-byte ids):

    v:{<user id>}   number (4) and accounts followed; number (4) and those among them whose reposts are not wanted;
                    number (4) and accounts hidden, each with the ms (8) at which a mute ends, 0 for never; filters as
                    JSON (readmodels/filters.py), nothing if there are none
"""

import struct
from uuid import UUID

import msgspec

from readmodels.documents import GONE_SECONDS, Kind, Row
from readmodels.filters import NO_FILTERS, filters_sql, parse_filters
from readmodels.home_rules import Viewer

_NUMBER = struct.Struct(">I")

VIEWERS_BY_ID = f"""
SELECT u.id,
       ARRAY(SELECT followee_id FROM follows WHERE follower_id = u.id ORDER BY 1) AS followees,
       ARRAY(SELECT followee_id FROM follows WHERE follower_id = u.id AND NOT show_reblogs
             ORDER BY 1) AS without_reposts,
       ARRAY(SELECT blocked_id FROM blocks WHERE blocker_id = u.id
             UNION SELECT blocker_id FROM blocks WHERE blocked_id = u.id ORDER BY 1) AS blocked,
       ARRAY(SELECT muted_id FROM mutes WHERE muter_id = u.id ORDER BY 1) AS muted,
       ARRAY(SELECT coalesce((extract(epoch FROM expires_at) * 1000)::bigint, 0) FROM mutes
             WHERE muter_id = u.id ORDER BY muted_id) AS mutes_end_ms,
       {filters_sql("u.id")} AS filters
FROM users u
WHERE u.id = ANY(%(ids)s::uuid[])
"""


def _viewer_body(row: Row, _: str) -> bytes:
    # A block outlasts any mute of the same account, so it is written last: readers keep the last one.
    hidden = [(account, ends) for account, ends in zip(row["muted"], row["mutes_end_ms"], strict=True)]
    hidden += [(account, 0) for account in row["blocked"]]
    return b"".join(
        (
            _accounts(row["followees"]),
            _accounts(row["without_reposts"]),
            _NUMBER.pack(len(hidden)),
            *(account.bytes + ends.to_bytes(8) for account, ends in hidden),
            msgspec.json.encode(row["filters"]) if row["filters"] else b"",
        )
    )


def viewer(viewer_id: UUID, body: bytes) -> Viewer:
    """The viewer's relations from the body of their document; an empty one is somebody without any."""
    if not body:
        return Viewer(viewer_id.bytes, frozenset())
    followees, at = _take_accounts(body, 0)
    without_reposts, at = _take_accounts(body, at)
    end = at + 4 + 24 * int(_NUMBER.unpack_from(body, at)[0])
    hidden = {
        body[start : start + 16]: int.from_bytes(body[start + 16 : start + 24]) for start in range(at + 4, end, 24)
    }
    filters = parse_filters(msgspec.json.decode(body[end:])) if len(body) > end else NO_FILTERS
    return Viewer(viewer_id.bytes, followees, without_reposts, hidden, filters)


def _accounts(accounts: list[UUID]) -> bytes:
    return _NUMBER.pack(len(accounts)) + b"".join(account.bytes for account in accounts)


def _take_accounts(body: bytes, at: int) -> tuple[frozenset[bytes], int]:
    end = at + 4 + 16 * int(_NUMBER.unpack_from(body, at)[0])
    return frozenset(body[start : start + 16] for start in range(at + 4, end, 16)), end


VIEWER = Kind("viewer", b"v", VIEWERS_BY_ID, _viewer_body, model="relations", sparse=True, gone_seconds=GONE_SECONDS)
