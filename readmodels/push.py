"""Web Push: which subscriptions want a notification, and what they are sent (Mastodon's payload)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from fanline.content import clean
from readmodels.effects import Query
from readmodels.entities import media_url

ALERTS: Final = (
    "mention",
    "status",
    "reblog",
    "follow",
    "follow_request",
    "favourite",
    "poll",
    "update",
    "admin.sign_up",
    "admin.report",
)
"""What a client may ask to be told of. `moderation_warning` is told whatever it asks for."""

POLICIES: Final = ("all", "followed", "follower", "none")

FRESH_DAYS: Final = 2
"""Older notifications are not pushed; a replayed log then pushes nothing, however long ago rows were pruned."""

TTL_SECONDS: Final = FRESH_DAYS * 86_400
MAX_BODY: Final = 140

_ENQUEUE = f"""
INSERT INTO notification_deliveries (notification_id, channel, target)
SELECT n.id, 'push', s.id
FROM notifications n
JOIN push_subscriptions s ON s.user_id = n.user_id
JOIN sessions e ON e.id = s.session_id AND e.revoked_at IS NULL AND e.expires_at > now()
WHERE n.id = ANY(%(ids)s::bigint[]) AND n.dismissed_at IS NULL AND NOT n.filtered
  AND n.created_at > now() - interval '{FRESH_DAYS} days'
  AND n.created_at >= s.created_at - interval '1 minute'
  AND (n.type = 'moderation_warning' OR coalesce((s.alerts ->> n.type)::boolean, false))
  AND (s.policy = 'all' OR n.type = 'moderation_warning'
       OR (s.policy = 'followed' AND EXISTS (
           SELECT 1 FROM follows f WHERE f.follower_id = n.user_id AND f.followee_id = n.from_account_id))
       OR (s.policy = 'follower' AND EXISTS (
           SELECT 1 FROM follows f WHERE f.follower_id = n.from_account_id AND f.followee_id = n.user_id)))
ON CONFLICT DO NOTHING
RETURNING notification_id
"""

_MESSAGES = """
SELECT n.id AS notification_id, s.id AS target, s.endpoint, s.key_p256dh, s.key_auth, s.sealed_token,
       n.type, i.locale,
       coalesce(nullif(sender.display_name, ''), sender.username) AS sender, sender.note, sender.avatar_media_id,
       p.text, p.spoiler_text
FROM notifications n
JOIN push_subscriptions s ON s.user_id = n.user_id
JOIN sessions e ON e.id = s.session_id AND e.revoked_at IS NULL AND e.expires_at > now()
JOIN identities i ON i.user_id = n.user_id
LEFT JOIN users sender ON sender.id = n.from_account_id
LEFT JOIN posts p ON p.id = n.post_id
WHERE n.id = ANY(%(ids)s::bigint[]) AND s.id = ANY(%(targets)s::uuid[]) AND n.dismissed_at IS NULL
  AND sender.suspended_at IS NULL
"""

_REMOVE = "DELETE FROM push_subscriptions WHERE id = %(id)s RETURNING id"

_TITLES: Final[Mapping[str, str]] = {
    "mention": "{} mentioned you",
    "status": "{} just posted",
    "reblog": "{} boosted your post",
    "follow": "{} followed you",
    "follow_request": "{} asked to follow you",
    "favourite": "{} favourited your post",
    "poll": "A poll has ended",
    "update": "{} edited a post",
    "admin.sign_up": "{} signed up",
    "admin.report": "{} sent a report",
    "moderation_warning": "You have received a moderation warning",
}


def enqueue(ids: Sequence[int]) -> Query:
    """Makes a pending delivery for every subscription that wants one of these notifications, once."""
    return Query(_ENQUEUE, {"ids": list(ids)})


def messages(ids: Sequence[int], targets: Sequence[UUID]) -> Query:
    """Rows for `payload`, with endpoint, keys and sealed token, of those claimed deliveries that are still wanted."""
    return Query(_MESSAGES, {"ids": list(ids), "targets": list(targets)})


def remove(target: UUID) -> Query:
    """Forgets a subscription that its push service has forgotten."""
    return Query(_REMOVE, {"id": target})


def title(kind: str, sender: str | None) -> str:
    """One line that says what has happened."""
    return _TITLES[kind].format(sender or "Somebody")


def payload(row: Mapping[str, Any], public_url: str, access_token: str | None) -> bytes:
    """The JSON that a client shows; by the access token it knows for which of its accounts."""
    text = row["spoiler_text"] or row["text"]
    if row["type"] in ("follow", "follow_request"):
        text = row["note"]
    return msgspec.json.encode(
        {
            **({} if access_token is None else {"access_token": access_token}),
            "preferred_locale": row["locale"],
            # A number, as in Mastodon, though ids are texts everywhere else.
            "notification_id": row["notification_id"],
            "notification_type": row["type"],
            "icon": media_url(public_url, row["avatar_media_id"], "avatars/original/missing.png"),
            "title": title(row["type"], row["sender"]),
            "body": excerpt(text or "", MAX_BODY),
        }
    )


def excerpt(text: str, characters: int) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(clean(text).split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"
