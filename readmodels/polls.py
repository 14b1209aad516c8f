"""Mastodon's Poll entity from rows, and the SQL that loads them. What changes with time is settled when it is read."""

from collections.abc import Sequence
from datetime import datetime

from readmodels.entities import Entity, Row, timestamp

# A batch a query; `options` in their order. It is also the oracle of every count of votes.
POLLS_BY_ID = """
SELECT l.id, l.post_id, p.author_id, l.multiple, l.hide_totals, l.expires_at,
       (SELECT coalesce(
                   jsonb_agg(jsonb_build_object('title', t.title, 'votes_count', t.votes) ORDER BY t.position), '[]')
        FROM (SELECT o.position, o.title, count(v.voter_id) AS votes
              FROM poll_options o LEFT JOIN poll_votes v ON v.poll_id = o.poll_id AND v.position = o.position
              WHERE o.poll_id = l.id
              GROUP BY o.position, o.title) t) AS options,
       (SELECT count(DISTINCT v.voter_id) FROM poll_votes v WHERE v.poll_id = l.id) AS voters_count
FROM polls l JOIN posts p ON p.id = l.post_id
WHERE l.id = ANY(%(ids)s::bigint[])
"""

# What the viewer (%(viewer)s, a uuid) has voted for in each of the polls; no row where they have not voted.
OWN_VOTES_BY_POLL = """
SELECT v.poll_id AS id, array_agg(v.position ORDER BY v.position) AS own_votes
FROM poll_votes v
WHERE v.voter_id = %(viewer)s AND v.poll_id = ANY(%(ids)s::bigint[])
GROUP BY v.poll_id
"""


def poll_entity(row: Row, now: datetime) -> Entity:
    """The Poll as anybody sees it at a time; `row` is one of `POLLS_BY_ID`.

    Votes an option are null while the author hides them and the poll has not ended.
    """
    ended = row["expires_at"] is not None and row["expires_at"] <= now
    hidden = row["hide_totals"] and not ended
    return {
        "id": str(row["id"]),
        "expires_at": timestamp(row["expires_at"]) if row["expires_at"] is not None else None,
        "expired": ended,
        "multiple": row["multiple"],
        "votes_count": sum(option["votes_count"] for option in row["options"]),
        "voters_count": row["voters_count"],
        "options": [
            {"title": option["title"], "votes_count": None if hidden else option["votes_count"]}
            for option in row["options"]
        ],
        "emojis": [],
    }


def poll_flags(own_votes: Sequence[int], is_author: bool) -> Entity:
    """What the viewer has done with the Poll; to its author it counts as voted, as there is nothing to vote for."""
    return {"voted": is_author or bool(own_votes), "own_votes": list(own_votes)}
