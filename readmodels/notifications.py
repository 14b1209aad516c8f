"""Notifications as the database has them, and Mastodon's Notification entity of one.

A row of `notifications` is written by the notifications flow (readmodels/notification_rows.py), shown until it is
dismissed, and kept so that a replayed event inserts nothing. Rows that the recipient's policy has filtered are shown
only as *requests*, a sender each. `LISTED` is the oracle of the inbox (readmodels/inbox.py). Whoever reads it leaves
out the senders who are suspended now (`UNSUSPENDED`): their rows stay, and are shown again when the suspension ends.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from readmodels.entities import Entity, timestamp

Row = Mapping[str, Any]

TYPES: Final = (
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
    "moderation_warning",
)
"""Every type, as in Mastodon. Their order is part of the inbox's layout: new ones go to the end."""

GROUPED_TYPES: Final = ("favourite", "reblog", "follow", "admin.sign_up")
"""The types that are shown as "A, B and 12 others"."""

GROUP_HOURS = 12
"""Notifications that lie in one span of this length, counted from the epoch, are one group; as wide as Mastodon's."""

UNGROUPED = "ungrouped-"

COLUMNS = """n.id, n.user_id, n.type, n.from_account_id, n.post_id, n.report_id, n.moderation_action_id, n.group_key,
       n.filtered, n.created_at, n.dismissed_at"""

UNSUSPENDED = "NOT EXISTS (SELECT 1 FROM users s WHERE s.id = n.from_account_id AND s.suspended_at IS NOT NULL)"
"""The row's sender is not suspended."""

SUSPENDED = "SELECT u.id FROM users u WHERE u.id = ANY(%(ids)s::uuid[]) AND u.suspended_at IS NOT NULL"
"""Who of these people is suspended."""

NOTIFICATIONS_BY_ID = f"SELECT {COLUMNS} FROM notifications n WHERE n.id = ANY(%(ids)s::bigint[]) AND {UNSUSPENDED}"
"""The rows with these ids, in no order, dismissed and filtered ones included, without those of suspended senders."""

LISTABLE = "n.user_id = %(user_id)s::uuid AND n.dismissed_at IS NULL AND NOT n.filtered"
"""Which rows of a person's are in an inbox."""

SHOWN = f"{LISTABLE} AND {UNSUSPENDED}"
"""Which rows a person is shown."""

SHOWN_OR_FILTERED = f"n.user_id = %(user_id)s::uuid AND n.dismissed_at IS NULL AND {UNSUSPENDED}"
"""The same, with those that the policy has filtered."""

LISTED = f"SELECT {COLUMNS} FROM notifications n WHERE {LISTABLE} ORDER BY n.id DESC LIMIT %(limit)s"
"""The oracle: a person's newest notifications, newest first."""

REPORTS_BY_ID = """
SELECT r.id, r.target_id, r.category, r.comment, r.rule_ids, r.created_at, r.resolved_at,
       (SELECT coalesce(jsonb_agg(p.post_id::text ORDER BY p.post_id), '[]')
        FROM report_posts p WHERE p.report_id = r.id) AS status_ids
FROM reports r
WHERE r.id = ANY(%(ids)s::uuid[])
"""

WARNINGS_BY_ID = """
SELECT a.id, a.target_id, a.action, a.text, a.post_id, a.created_at FROM moderation_actions a
WHERE a.id = ANY(%(ids)s::uuid[])
"""

# What Mastodon calls the actions that it warns of.
_WARNINGS: Final = {"warn": "none", "delete_post": "delete_statuses"}


def group_key(kind: str, identifier: int, post_id: int | None, created_at: datetime) -> str:
    """The group of a notification: a function of its row, so that every reader and every replay agrees."""
    if kind not in GROUPED_TYPES:
        return f"{UNGROUPED}{identifier}"
    span = int(created_at.timestamp()) // (GROUP_HOURS * 3600)
    return f"{kind}-{post_id}-{span}" if post_id is not None else f"{kind}-{span}"


def notification_entity(
    row: Row,
    account: Entity,
    status: Entity | None = None,
    report: Entity | None = None,
    warning: Entity | None = None,
) -> Entity:
    """The Notification: `row` is one of `NOTIFICATIONS_BY_ID`, the rest are the entities of what it names."""
    entity: Entity = {
        "id": str(row["id"]),
        "type": row["type"],
        "created_at": timestamp(row["created_at"]),
        "group_key": row["group_key"] or f"{UNGROUPED}{row['id']}",
        "account": account,
    }
    if row["post_id"] is not None:
        entity["status"] = status
    if report is not None:
        entity["report"] = report
    if warning is not None:
        entity["moderation_warning"] = warning
    return entity


def report_entity(row: Row, target: Entity) -> Entity:
    """The Report; `row` is one of `REPORTS_BY_ID`."""
    resolved_at: datetime | None = row["resolved_at"]
    return {
        "id": str(row["id"]),
        "action_taken": resolved_at is not None,
        "action_taken_at": None if resolved_at is None else timestamp(resolved_at),
        "category": row["category"],
        "comment": row["comment"],
        "forwarded": False,
        "created_at": timestamp(row["created_at"]),
        "status_ids": row["status_ids"],
        "rule_ids": row["rule_ids"],
        "target_account": target,
    }


def warning_entity(row: Row, target: Entity) -> Entity:
    """The AccountWarning; `row` is one of `WARNINGS_BY_ID`."""
    action: str = row["action"]
    return {
        "id": str(row["id"]),
        "action": _WARNINGS.get(action, action),
        "text": row["text"],
        "status_ids": None if row["post_id"] is None else [str(row["post_id"])],
        "target_account": target,
        "appeal": None,
        "created_at": timestamp(row["created_at"]),
    }


def account_of(row: Row) -> UUID:
    """The account that the entity shows: the sender, or the told account where there is none."""
    account: UUID = row["from_account_id"] or row["user_id"]
    return account
