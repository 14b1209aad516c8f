"""SQL of the notifications flow: candidates with what decides about them, rows, and what has gone.

`CANDIDATES` takes the sets of a `Look` as arrays (`candidate_parameters`) and answers one row of
`notification_rules.Candidate` for everything that is there now and tells somebody else of something.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from readmodels.filters import filters_sql
from readmodels.notification_rules import DEFAULTS, FILTERABLE, Look, Told

THREAD_DEPTH = 100
"""So far up in its thread it is looked for what a private mention answers; as in Mastodon."""

_FOUND = """
  SELECT p.author_id AS user_id, 'favourite' AS type, l.user_id AS from_account_id, p.id AS post_id,
         NULL::uuid AS report_id, NULL::uuid AS moderation_action_id, l.created_at AS happened_at
  FROM unnest(%(favouriters)b::uuid[], %(favourites)b::bigint[]) AS e (user_id, post_id)
  JOIN likes l ON l.user_id = e.user_id AND l.post_id = e.post_id
  JOIN posts p ON p.id = l.post_id
  UNION ALL
  SELECT p.author_id, 'reblog', r.author_id, p.id, NULL, NULL, r.created_at
  FROM posts r JOIN posts p ON p.id = r.repost_of_id
  WHERE r.id = ANY(%(reposts)b::bigint[])
  UNION ALL
  SELECT m.account_id, 'mention', p.author_id, p.id, NULL, NULL, coalesce(p.edited_at, p.created_at)
  FROM posts p JOIN post_mentions m ON m.post_id = p.id
  WHERE p.id = ANY(%(posts)b::bigint[])
  UNION ALL
  SELECT p.in_reply_to_account_id, 'mention', p.author_id, p.id, NULL, NULL, p.created_at
  FROM posts p
  WHERE p.id = ANY(%(posts)b::bigint[]) AND p.in_reply_to_account_id IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM post_mentions m
                    WHERE m.post_id = p.id AND m.account_id = p.in_reply_to_account_id)
  UNION ALL
  SELECT t.user_id, t.type, p.author_id, p.id, NULL, NULL,
         CASE t.type WHEN 'update' THEN p.edited_at WHEN 'status' THEN p.created_at
                     ELSE CASE WHEN poll.expires_at <= clock_timestamp() THEN poll.expires_at END END
  FROM unnest(%(told)b::uuid[], %(told_types)b::text[], %(told_posts)b::bigint[]) AS t (user_id, type, post_id)
  JOIN posts p ON p.id = t.post_id
  LEFT JOIN polls poll ON poll.post_id = p.id
  UNION ALL
  SELECT f.followee_id, 'follow', f.follower_id, NULL, NULL, NULL, f.created_at
  FROM unnest(%(followers)b::uuid[], %(followees)b::uuid[]) AS e (follower_id, followee_id)
  JOIN follows f ON f.follower_id = e.follower_id AND f.followee_id = e.followee_id
  UNION ALL
  SELECT f.followee_id, 'follow_request', f.follower_id, NULL, NULL, NULL, f.created_at
  FROM unnest(%(requesters)b::uuid[], %(requested)b::uuid[]) AS e (follower_id, followee_id)
  JOIN follow_requests f ON f.follower_id = e.follower_id AND f.followee_id = e.followee_id
  UNION ALL
  SELECT a.target_id, 'moderation_warning', a.target_id, NULL, NULL, a.id, a.created_at
  FROM moderation_actions a
  WHERE a.id = ANY(%(actions)b::uuid[])
    AND a.action IN ('none', 'warn', 'sensitive', 'silence', 'suspend', 'delete_post')
  UNION ALL
  SELECT i.user_id, 'admin.report', r.reporter_id, NULL, r.id, NULL, r.created_at
  FROM reports r CROSS JOIN identities i
  WHERE r.id = ANY(%(reports)b::uuid[]) AND i.role IN ('moderator', 'admin') AND i.created_at <= r.created_at
  UNION ALL
  SELECT i.user_id, 'admin.sign_up', u.id, NULL, NULL, NULL, u.created_at
  FROM users u CROSS JOIN identities i
  WHERE u.id = ANY(%(sign_ups)b::uuid[]) AND i.role = 'admin' AND i.created_at <= u.created_at
"""

_FILTERABLE = ", ".join(f"'{kind}'" for kind in sorted(FILTERABLE))

CANDIDATES = f"""
WITH found AS ({_FOUND})
SELECT c.user_id, c.type, c.from_account_id, c.post_id, c.report_id, c.moderation_action_id, c.happened_at,
       recipient.suspended_at IS NOT NULL AS recipient_suspended,
       sender.suspended_at IS NOT NULL AS sender_suspended,
       c.post_id IS NULL OR p.visibility IN ('public', 'unlisted') OR p.author_id = c.user_id
       OR EXISTS (SELECT 1 FROM post_mentions m WHERE m.post_id = p.id AND m.account_id = c.user_id)
       OR (p.visibility = 'private'
           AND EXISTS (SELECT 1 FROM follows f WHERE f.follower_id = c.user_id AND f.followee_id = p.author_id))
           AS visible,
       EXISTS (SELECT 1 FROM blocks b WHERE b.blocker_id = c.user_id AND b.blocked_id = c.from_account_id)
       OR EXISTS (SELECT 1 FROM blocks b WHERE b.blocker_id = c.from_account_id AND b.blocked_id = c.user_id)
           AS blocked,
       EXISTS (SELECT 1 FROM mutes u
               WHERE u.muter_id = c.user_id AND u.muted_id = c.from_account_id AND u.hide_notifications
                 AND (u.expires_at IS NULL OR u.expires_at > clock_timestamp())) AS muted,
       c.post_id IS NOT NULL
       AND EXISTS (SELECT 1 FROM conversation_mutes v
                   WHERE v.user_id = c.user_id AND v.post_id = coalesce(p.conversation_id, p.id))
           AS conversation_muted,
       c.type IN ('mention', 'status', 'update')
       AND EXISTS (SELECT 1 FROM filters h WHERE h.user_id = c.user_id AND h.action = 'hide') AS hidden,
       c.type IN ({_FILTERABLE})
       AND (sender.silenced_at IS NOT NULL OR (c.type = 'mention' AND p.visibility = 'direct')
            OR EXISTS (SELECT 1 FROM notification_policies policy WHERE policy.user_id = c.user_id))
           AS may_be_filtered
FROM found c
JOIN users recipient ON recipient.id = c.user_id
JOIN users sender ON sender.id = c.from_account_id
LEFT JOIN posts p ON p.id = c.post_id
WHERE c.happened_at IS NOT NULL
  AND (c.user_id <> c.from_account_id OR c.type IN ('poll', 'moderation_warning'))
"""
"""`hidden` is true where a filter that hides might hide the post. Whether one does is looked at apart, and so are
policies, where the recipient has one or a default may apply (`DEFAULTS`): they look at much, and hardly ever must."""

_PARTS = ",\n       ".join(f"coalesce(policy.{part}, '{default}') AS {part}" for part, default in DEFAULTS.items())

POLICIES = f"""
WITH RECURSIVE e AS (
  SELECT * FROM unnest(%(number)b::bigint[], %(user_id)b::uuid[], %(type)b::text[], %(from_account_id)b::uuid[],
                       %(post_id)b::bigint[]) AS e (number, user_id, type, from_account_id, post_id)
), above (number, post_id, depth) AS (
  SELECT e.number, p.in_reply_to_id, 1 FROM e JOIN posts p ON p.id = e.post_id
  WHERE e.type = 'mention' AND p.visibility = 'direct' AND p.in_reply_to_id IS NOT NULL
  UNION ALL
  SELECT a.number, p.in_reply_to_id, a.depth + 1 FROM above a JOIN posts p ON p.id = a.post_id
  WHERE p.in_reply_to_id IS NOT NULL AND a.depth < {THREAD_DEPTH}
)
SELECT e.number, sender.silenced_at IS NOT NULL AS sender_limited, sender.created_at AS sender_since,
       {_PARTS},
       EXISTS (SELECT 1 FROM follows f WHERE f.follower_id = e.user_id AND f.followee_id = e.from_account_id)
           AS following,
       (SELECT f.created_at FROM follows f WHERE f.follower_id = e.from_account_id AND f.followee_id = e.user_id)
           AS followed_since,
       EXISTS (SELECT 1 FROM notification_permissions n
               WHERE n.user_id = e.user_id AND n.from_account_id = e.from_account_id)
       OR (e.type = 'mention'
           AND EXISTS (SELECT 1 FROM identities staff JOIN identities other ON other.user_id = e.user_id
                       WHERE staff.user_id = e.from_account_id
                         AND ((staff.role = 'moderator' AND other.role = 'user')
                              OR (staff.role = 'admin' AND other.role <> 'admin'))))
           AS permitted,
       e.type = 'mention' AND p.visibility = 'direct'
       AND NOT EXISTS (SELECT 1 FROM above a JOIN posts asked ON asked.id = a.post_id
                       JOIN post_mentions m ON m.post_id = asked.id AND m.account_id = e.from_account_id
                       WHERE a.number = e.number AND asked.author_id = e.user_id AND asked.visibility = 'direct')
           AS unasked_private_mention
FROM e
JOIN users sender ON sender.id = e.from_account_id
LEFT JOIN notification_policies policy ON policy.user_id = e.user_id
LEFT JOIN posts p ON p.id = e.post_id
"""
"""What the recipients' policies look at, of candidates by their number.

As in Mastodon staff who mention somebody below them are never filtered, and a private mention is not if its thread has
one of the recipient's to the sender.
"""

FILTERED_TEXTS = f"""
SELECT e.user_id, e.post_id, p.text, p.spoiler_text, {filters_sql("e.user_id")} AS filters,
       (SELECT coalesce(jsonb_agg(o.title ORDER BY o.position), '[]')
        FROM polls q JOIN poll_options o ON o.poll_id = q.id WHERE q.post_id = p.id) AS poll_titles
FROM unnest(%(users)s::uuid[], %(posts)s::bigint[]) AS e (user_id, post_id)
JOIN posts p ON p.id = e.post_id
"""
"""Posts and the filters of whoever is to be told of them."""

# Posts of people whom somebody wants to hear of every time: as in Mastodon no reposts, no replies to others.
WANTED_POSTS = """
SELECT p.id AS post_id, 'status' AS type FROM posts p
WHERE p.id = ANY(%(published)s::bigint[]) AND p.repost_of_id IS NULL AND p.visibility <> 'direct'
  AND (p.in_reply_to_account_id IS NULL OR p.in_reply_to_account_id = p.author_id)
  AND EXISTS (SELECT 1 FROM follows f WHERE f.followee_id = p.author_id AND f.notify)
UNION ALL
SELECT p.id, 'update' FROM posts p
WHERE p.id = ANY(%(edited)s::bigint[]) AND p.edited_at IS NOT NULL
  AND EXISTS (SELECT 1 FROM posts r WHERE r.repost_of_id = p.id)
"""

TOLD_OF: Mapping[str, str] = {
    # Whoever is mentioned is told so. Who has followed since does not hear of what was before.
    "status": """
SELECT f.follower_id AS user_id FROM posts p
JOIN follows f ON f.followee_id = p.author_id AND f.notify AND f.created_at <= p.created_at
WHERE p.id = %(post_id)s AND f.follower_id > %(after)s::uuid
  AND NOT EXISTS (SELECT 1 FROM post_mentions m WHERE m.post_id = p.id AND m.account_id = f.follower_id)
ORDER BY f.follower_id LIMIT %(limit)s
""",
    "update": """
SELECT r.author_id AS user_id FROM posts p
JOIN posts r ON r.repost_of_id = p.id AND r.created_at <= p.edited_at
WHERE p.id = %(post_id)s AND r.author_id > %(after)s::uuid
ORDER BY r.author_id LIMIT %(limit)s
""",
    "poll": """
SELECT voter.user_id FROM (
  SELECT v.voter_id AS user_id FROM polls q JOIN poll_votes v ON v.poll_id = q.id WHERE q.post_id = %(post_id)s
  UNION SELECT p.author_id FROM posts p WHERE p.id = %(post_id)s
) voter
WHERE voter.user_id > %(after)s::uuid
ORDER BY voter.user_id LIMIT %(limit)s
""",
}
"""Types that a post may tell any number of people of: the recipients, a page at a time in the order of their ids."""

# Two seconds, so that the last votes are committed; a poll that is made later ends later.
ENDED_POLLS = """
SELECT q.id, q.post_id, q.expires_at FROM polls q
CROSS JOIN (SELECT coalesce(max(ended_at), now() - INTERVAL '7 days') AS ended_at, coalesce(max(poll_id), 0) AS poll_id
            FROM polls_told) AS told
WHERE q.expires_at >= told.ended_at AND (q.expires_at > told.ended_at OR q.id > told.poll_id)
  AND q.expires_at < clock_timestamp() - INTERVAL '2 seconds'
ORDER BY q.expires_at, q.id LIMIT %(limit)s
"""
"""Polls that have ended and that nobody was told of yet; the first time, those of the last week."""

POLLS_TOLD = """
INSERT INTO polls_told (id, ended_at, poll_id) VALUES (1, %(ended_at)s, %(poll_id)s)
ON CONFLICT (id) DO UPDATE SET ended_at = excluded.ended_at, poll_id = excluded.poll_id
WHERE (polls_told.ended_at, polls_told.poll_id) < (excluded.ended_at, excluded.poll_id)
"""

INSERT = """
INSERT INTO notifications (id, user_id, type, from_account_id, post_id, report_id, moderation_action_id, group_key,
                           filtered, created_at, dismissed_at, cause)
SELECT * FROM unnest(%(id)b::bigint[], %(user_id)b::uuid[], %(type)b::text[], %(from_account_id)b::uuid[],
                     %(post_id)b::bigint[], %(report_id)b::uuid[], %(moderation_action_id)b::uuid[],
                     %(group_key)b::text[], %(filtered)b::boolean[], %(created_at)b::timestamptz[],
                     %(dismissed_at)b::timestamptz[], %(cause)b::bigint[])
ON CONFLICT DO NOTHING
RETURNING id
"""
"""The ids that were inserted; the others are there already, as the same cause or as another one's id."""

KNOWN = """
SELECT n.user_id, n.cause FROM unnest(%(user_id)b::uuid[], %(cause)b::bigint[]) AS e (user_id, cause)
JOIN notifications n ON n.user_id = e.user_id AND n.cause = e.cause
"""

# As in Mastodon the news of an edit replaces that of the edit before.
REPLACE_UPDATES = """
UPDATE notifications SET dismissed_at = clock_timestamp()
WHERE id IN (SELECT old.id FROM unnest(%(ids)b::bigint[]) AS e (id)
             JOIN notifications new ON new.id = e.id
             JOIN notifications old ON old.post_id = new.post_id AND old.user_id = new.user_id
                  AND old.type = 'update' AND old.created_at < new.created_at)
  AND dismissed_at IS NULL
"""

INSERT_EVENTS = """
INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, traceparent)
SELECT gen_random_uuid(), 'notification.dispatched', e.key, 'notification.dispatched', e.payload, NULL
FROM unnest(%(keys)b::text[], %(payloads)b::bytea[]) AS e (key, payload)
"""

# A notification goes when what it tells of has gone; what has come again since is another one.
WITHDRAW_FAVOURITES = """
DELETE FROM notifications WHERE id IN (
  SELECT n.id FROM unnest(%(accounts)s::uuid[], %(posts)s::bigint[]) AS e (account_id, post_id)
  JOIN notifications n ON n.from_account_id = e.account_id AND n.post_id = e.post_id AND n.type = 'favourite'
  WHERE NOT EXISTS (SELECT 1 FROM likes l WHERE l.user_id = e.account_id AND l.post_id = e.post_id
                                            AND l.created_at = n.created_at))
"""

WITHDRAW_REPOSTS = """
DELETE FROM notifications WHERE id IN (
  SELECT n.id FROM unnest(%(accounts)s::uuid[], %(posts)s::bigint[]) AS e (account_id, post_id)
  JOIN notifications n ON n.from_account_id = e.account_id AND n.post_id = e.post_id AND n.type = 'reblog'
  WHERE NOT EXISTS (SELECT 1 FROM posts r WHERE r.author_id = e.account_id AND r.repost_of_id = e.post_id
                                            AND r.created_at = n.created_at))
"""

WITHDRAW_FOLLOWS = """
DELETE FROM notifications WHERE id IN (
  SELECT n.id FROM unnest(%(followers)s::uuid[], %(followees)s::uuid[]) AS e (follower_id, followee_id)
  JOIN notifications n ON n.from_account_id = e.follower_id AND n.user_id = e.followee_id AND n.type = 'follow'
       AND n.post_id IS NULL
  WHERE NOT EXISTS (SELECT 1 FROM follows f WHERE f.follower_id = e.follower_id AND f.followee_id = e.followee_id
                                              AND f.created_at = n.created_at))
"""

WITHDRAW_REQUESTS = """
DELETE FROM notifications WHERE id IN (
  SELECT n.id FROM unnest(%(followers)s::uuid[], %(followees)s::uuid[]) AS e (follower_id, followee_id)
  JOIN notifications n ON n.from_account_id = e.follower_id AND n.user_id = e.followee_id
       AND n.type = 'follow_request' AND n.post_id IS NULL
  WHERE NOT EXISTS (SELECT 1 FROM follow_requests f
                    WHERE f.follower_id = e.follower_id AND f.followee_id = e.followee_id
                      AND f.created_at = n.created_at))
"""

STALE_OF = """
SELECT n.user_id, n.id FROM notifications n
WHERE n.user_id = ANY(%(users)s::uuid[]) AND n.cause IS NOT NULL AND (
  (n.type = 'favourite' AND NOT EXISTS (
     SELECT 1 FROM likes l WHERE l.user_id = n.from_account_id AND l.post_id = n.post_id
                             AND l.created_at = n.created_at))
  OR (n.type = 'reblog' AND NOT EXISTS (
     SELECT 1 FROM posts r WHERE r.author_id = n.from_account_id AND r.repost_of_id = n.post_id
                             AND r.created_at = n.created_at))
  OR (n.type = 'follow' AND NOT EXISTS (
     SELECT 1 FROM follows f WHERE f.follower_id = n.from_account_id AND f.followee_id = n.user_id
                               AND f.created_at = n.created_at))
  OR (n.type = 'follow_request' AND NOT EXISTS (
     SELECT 1 FROM follow_requests f WHERE f.follower_id = n.from_account_id AND f.followee_id = n.user_id
                                       AND f.created_at = n.created_at)))
"""
"""Notifications of these people that tell of what is not there any more: none, when the flow has caught up."""

# Who blocks somebody does not want to be reminded of them. Dismissed rather than deleted: it ends with no unblock.
DISMISS_BLOCKED = """
UPDATE notifications SET dismissed_at = clock_timestamp()
WHERE dismissed_at IS NULL AND id IN (
  SELECT n.id FROM unnest(%(blockers)s::uuid[], %(blocked)s::uuid[]) AS e (blocker_id, blocked_id)
  JOIN blocks b ON b.blocker_id = e.blocker_id AND b.blocked_id = e.blocked_id
  JOIN notifications n ON n.user_id = e.blocker_id AND n.from_account_id = e.blocked_id)
"""


def candidate_parameters(look: Look, told: Iterable[Told] = ()) -> dict[str, Any]:
    """The parameters of `CANDIDATES`."""
    favourites, follows, requests = list(look.favourites), list(look.follows), list(look.follow_requests)
    people = list(told)
    return {
        "favouriters": [account for account, _ in favourites],
        "favourites": [post for _, post in favourites],
        "reposts": list(look.reposts),
        "posts": list(look.posts),
        "told": [each.user_id for each in people],
        "told_types": [each.type for each in people],
        "told_posts": [each.post_id for each in people],
        "followers": [follower for follower, _ in follows],
        "followees": [followee for _, followee in follows],
        "requesters": [follower for follower, _ in requests],
        "requested": [followee for _, followee in requests],
        "actions": list(look.actions),
        "reports": list(look.reports),
        "sign_ups": list(look.sign_ups),
    }
