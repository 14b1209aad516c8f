"""Deliveries through a channel: what is to be sent and what was (table `notification_deliveries`).

A flow turns events into *pending* rows and goes on; a courier (dataflows/courier.py) claims those that are due, sends
them, and notes what became of them:

    pending    waits for `next_attempt_at`
    sending    claimed by a process that is about to send it
    sent       the target has taken it
    failed     the target will never take it, or has failed too often
    unknown    nobody knows whether the target has taken it: it was not heard of again, or the process died
    skipped    nobody wants it any more

Only `pending` rows are ever sent, and a claim is committed before anything is sent. So nothing is sent twice, whatever
is replayed, killed or slow; what was `sending` when a process died may be lost.
"""

from collections.abc import Sequence
from typing import Final, Literal
from uuid import UUID

from readmodels.effects import Query

Channel = Literal["push", "email"]

MAX_ATTEMPTS: Final = 10
LONGEST_PAUSE_SECONDS: Final = 6 * 3600.0
# Longer than anything takes that is sent; a process that is only slow must not be taken for dead.
ABANDONED_SECONDS: Final = 600

# First attempts go before others, so that targets that fail hold up none that do not.
_CLAIM_ONE = """
WITH due AS (
  SELECT DISTINCT ON (target) notification_id, target, attempts, next_attempt_at FROM notification_deliveries
  WHERE channel = %(channel)s AND state = 'pending' AND next_attempt_at <= now() AND target <> ALL(%(busy)s::uuid[])
  ORDER BY target, notification_id
), chosen AS (
  SELECT notification_id, target FROM due ORDER BY attempts, next_attempt_at LIMIT %(limit)s
), claimed AS (
  SELECT d.notification_id, d.target FROM notification_deliveries d JOIN chosen c
    ON c.notification_id = d.notification_id AND c.target = d.target
  WHERE d.channel = %(channel)s AND d.state = 'pending'
  FOR UPDATE OF d SKIP LOCKED
)
UPDATE notification_deliveries AS d SET state = 'sending', claimed_at = now(), attempts = d.attempts + 1
FROM claimed c
WHERE d.notification_id = c.notification_id AND d.target = c.target AND d.channel = %(channel)s
RETURNING d.notification_id, d.target, d.attempts
"""

_CLAIM_ALL = """
WITH due AS (
  SELECT target, min(attempts) AS attempts, min(next_attempt_at) AS since FROM notification_deliveries
  WHERE channel = %(channel)s AND state = 'pending' AND next_attempt_at <= now() AND target <> ALL(%(busy)s::uuid[])
  GROUP BY target
), chosen AS (
  SELECT target FROM due ORDER BY attempts, since LIMIT %(limit)s
), claimed AS (
  SELECT d.notification_id, d.target FROM notification_deliveries d JOIN chosen c ON c.target = d.target
  WHERE d.channel = %(channel)s AND d.state = 'pending'
  FOR UPDATE OF d SKIP LOCKED
)
UPDATE notification_deliveries AS d SET state = 'sending', claimed_at = now(), attempts = d.attempts + 1
FROM claimed c
WHERE d.notification_id = c.notification_id AND d.target = c.target AND d.channel = %(channel)s
RETURNING d.notification_id, d.target, d.attempts
"""

_FINISH = """
UPDATE notification_deliveries SET state = %(state)s, reason = %(reason)s
WHERE channel = %(channel)s AND target = %(target)s AND notification_id = ANY(%(ids)s::bigint[]) AND state = 'sending'
RETURNING notification_id
"""

# Whatever else waits for the target waits as long.
_POSTPONE = """
UPDATE notification_deliveries
SET state = CASE WHEN state = 'sending' AND attempts >= %(most)s THEN 'failed' ELSE 'pending' END,
    attempts = CASE WHEN state = 'sending' THEN attempts - %(uncounted)s ELSE attempts END,
    reason = CASE WHEN state = 'sending' THEN %(reason)s ELSE reason END,
    next_attempt_at = greatest(next_attempt_at, now() + %(seconds)s * interval '1 second')
WHERE channel = %(channel)s AND target = %(target)s
  AND (state = 'pending' OR (state = 'sending' AND notification_id = ANY(%(ids)s::bigint[])))
RETURNING notification_id
"""

_ABANDONED = """
UPDATE notification_deliveries SET state = 'unknown', reason = 'the process ended while it was sending'
WHERE channel = %(channel)s AND state = 'sending' AND claimed_at < now() - %(seconds)s * interval '1 second'
RETURNING notification_id
"""

_NEXT_DUE = """
SELECT extract(epoch FROM min(next_attempt_at) - now())::float AS seconds
FROM notification_deliveries WHERE channel = %(channel)s AND state = 'pending' AND target <> ALL(%(busy)s::uuid[])
"""


def claim(channel: Channel, limit: int, busy: Sequence[UUID], *, whole: bool) -> Query:
    """Claims what is due for `limit` targets that are not `busy`: the oldest row of each, or with `whole` all of them.

    Rows: notification_id, target, attempts (with this one).
    """
    return Query(_CLAIM_ALL if whole else _CLAIM_ONE, {"channel": channel, "limit": limit, "busy": list(busy)})


def finish(channel: Channel, target: UUID, ids: Sequence[int], state: str, reason: str | None) -> Query:
    """Notes what became of claimed rows for good."""
    return Query(
        _FINISH, {"channel": channel, "target": target, "ids": list(ids), "state": state, "reason": _short(reason)}
    )


def postpone(
    channel: Channel, target: UUID, ids: Sequence[int], seconds: float, reason: str, *, counted: bool = True
) -> Query:
    """Gives claimed rows back, to be tried again after so long; failed for good after `MAX_ATTEMPTS`.

    An attempt that is not `counted` was none: nothing was sent.
    """
    return Query(
        _POSTPONE,
        {
            "channel": channel,
            "target": target,
            "ids": list(ids),
            "seconds": seconds,
            "reason": _short(reason),
            "most": MAX_ATTEMPTS if counted else MAX_ATTEMPTS + 1,
            "uncounted": 0 if counted else 1,
        },
    )


def abandoned(channel: Channel, seconds: float = ABANDONED_SECONDS) -> Query:
    """Gives up on what was being sent so long ago."""
    return Query(_ABANDONED, {"channel": channel, "seconds": seconds})


def next_due(channel: Channel, busy: Sequence[UUID]) -> Query:
    """One row: the seconds until something is due for a target that is not busy, None when nothing waits.

    They are negative when it is due already.
    """
    return Query(_NEXT_DUE, {"channel": channel, "busy": list(busy)})


def pause_seconds(attempts: int, first: float) -> float:
    """How long to leave a target alone after so many attempts have failed; without jitter."""
    return float(min(LONGEST_PAUSE_SECONDS, first * 2 ** max(0, attempts - 1)))


def _short(text: str | None) -> str | None:
    return None if text is None else text[:500]
