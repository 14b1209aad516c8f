"""What a viewer's relations decide when a timeline is read, and what the viewer has reposted.

Layout (sparse documents, see readmodels/documents.py; numbers are big-endian, accounts 16-byte ids):

    v:{<user id>}   number (4) and accounts followed; number (4) and those among them whose reposts are not wanted;
                    number (4) and accounts hidden, each with the ms (8) at which a mute ends, 0 for never
    e:{<user id>}   horizon (8), then the ids (8) of the posts reposted that are above it; below it the database knows
"""

import struct
from dataclasses import dataclass
from uuid import UUID

from readmodels.documents import Kind, Row
from readmodels.home_rules import Viewer

REPOSTS_KEPT = 2_000

_NUMBER = struct.Struct(">I")

VIEWERS_BY_ID = """
SELECT u.id,
       ARRAY(SELECT followee_id FROM follows WHERE follower_id = u.id ORDER BY 1) AS followees,
       ARRAY(SELECT followee_id FROM follows WHERE follower_id = u.id AND NOT show_reblogs
             ORDER BY 1) AS without_reposts,
       ARRAY(SELECT blocked_id FROM blocks WHERE blocker_id = u.id
             UNION SELECT blocker_id FROM blocks WHERE blocked_id = u.id ORDER BY 1) AS blocked,
       ARRAY(SELECT muted_id FROM mutes WHERE muter_id = u.id ORDER BY 1) AS muted,
       ARRAY(SELECT coalesce((extract(epoch FROM expires_at) * 1000)::bigint, 0) FROM mutes
             WHERE muter_id = u.id ORDER BY muted_id) AS mutes_end_ms
FROM users u
WHERE u.id = ANY(%(ids)s::uuid[])
"""

OWN_REPOSTS_BY_ID = f"""
SELECT u.id,
       ARRAY(SELECT repost_of_id FROM posts WHERE author_id = u.id AND repost_of_id IS NOT NULL
             ORDER BY repost_of_id DESC LIMIT {REPOSTS_KEPT + 1}) AS reposted
FROM users u
WHERE u.id = ANY(%(ids)s::uuid[])
"""


@dataclass(frozen=True, slots=True)
class OwnReposts:
    """The posts that somebody has reposted, as far as ids above `horizon` go."""

    horizon: int
    originals: frozenset[int]


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
        )
    )


def viewer(viewer_id: UUID, body: bytes) -> Viewer:
    """The viewer's relations from the body of their document; an empty one is somebody without any."""
    if not body:
        return Viewer(viewer_id.bytes, frozenset())
    followees, at = _take_accounts(body, 0)
    without_reposts, at = _take_accounts(body, at)
    at += 4
    hidden = {
        body[start : start + 16]: int.from_bytes(body[start + 16 : start + 24]) for start in range(at, len(body), 24)
    }
    return Viewer(viewer_id.bytes, followees, without_reposts, hidden)


def _own_reposts_body(row: Row, _: str) -> bytes:
    reposted = row["reposted"]
    horizon = reposted[REPOSTS_KEPT] if len(reposted) > REPOSTS_KEPT else 0
    return b"".join((horizon.to_bytes(8), *(original.to_bytes(8) for original in reposted[:REPOSTS_KEPT])))


def own_reposts(body: bytes) -> OwnReposts:
    """The viewer's reposts from the body of their document."""
    ids = [int.from_bytes(body[at : at + 8]) for at in range(0, len(body), 8)]
    return OwnReposts(ids[0], frozenset(ids[1:])) if ids else OwnReposts(0, frozenset())


def _accounts(accounts: list[UUID]) -> bytes:
    return _NUMBER.pack(len(accounts)) + b"".join(account.bytes for account in accounts)


def _take_accounts(body: bytes, at: int) -> tuple[frozenset[bytes], int]:
    end = at + 4 + 16 * int(_NUMBER.unpack_from(body, at)[0])
    return frozenset(body[start : start + 16] for start in range(at + 4, end, 16)), end


VIEWER = Kind("viewer", b"v", VIEWERS_BY_ID, _viewer_body, sparse=True)
OWN_REPOSTS = Kind("own_reposts", b"e", OWN_REPOSTS_BY_ID, _own_reposts_body, sparse=True)
