"""Domain events, written to `outbox` in the transaction of the rows that they tell of."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID, uuid4

from api.database import Row, Transaction
from fanline.tracing import current_traceparent
from schemas.registry import EventEncoder

INSERT_EVENT = """
INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, traceparent)
VALUES (%(id)s, %(topic)s, %(key)s, %(topic)s, %(payload)s, %(traceparent)s)
"""

Engagement = Literal["favourite", "repost", "bookmark", "reply", "vote"]
"""What can be done with a post: the kinds of `engagement.recorded`."""


class Outbox:
    """Writes events into one transaction."""

    def __init__(self, transaction: Transaction, encoder: EventEncoder) -> None:
        self._transaction = transaction
        self._encoder = encoder

    async def post_created(
        self, row: Row, mentioned: Sequence[UUID] = (), hashtags: Sequence[str] = (), original: Row | None = None
    ) -> None:
        """A post, reply or repost (of `original`) was published."""
        await self._emit(
            "post.created",
            row["id"],
            {
                "post_id": str(row["id"]),
                "author_id": str(row["author_id"]),
                "text": row["text"],
                "spoiler_text": row["spoiler_text"],
                "sensitive": row["sensitive"],
                "visibility": row["visibility"],
                "language": row["language"],
                "in_reply_to_id": _text(row["in_reply_to_id"]),
                "in_reply_to_account_id": _text(row["in_reply_to_account_id"]),
                "repost_of_id": _text(row["repost_of_id"]),
                "repost_of_account_id": None if original is None else str(original["author_id"]),
                "mentions": [str(identifier) for identifier in mentioned],
                "hashtags": list(hashtags),
                "media_ids": [],
                "application_id": _text(row["application_id"]),
                "created_at": row["created_at"],
            },
        )

    async def post_deleted(self, row: Row) -> None:
        """The author deleted a post or repost."""
        await self._emit(
            "post.deleted",
            row["id"],
            {
                "post_id": str(row["id"]),
                "author_id": str(row["author_id"]),
                "visibility": row["visibility"],
                "in_reply_to_id": _text(row["in_reply_to_id"]),
                "repost_of_id": _text(row["repost_of_id"]),
                "reason": "author",
                "deleted_at": datetime.now(UTC),
            },
        )

    async def post_updated(
        self,
        row: Row,
        mentioned: Sequence[UUID],
        mentioned_before: Sequence[UUID],
        hashtags: Sequence[str],
        *,
        poll_changed: bool = False,
    ) -> None:
        """The author changed a post, which is now as in this row."""
        await self._emit(
            "post.updated",
            row["id"],
            {
                "post_id": str(row["id"]),
                "author_id": str(row["author_id"]),
                "text": row["text"],
                "spoiler_text": row["spoiler_text"],
                "sensitive": row["sensitive"],
                "visibility": row["visibility"],
                "language": row["language"],
                "mentions": [str(identifier) for identifier in mentioned],
                "new_mentions": [str(identifier) for identifier in mentioned if identifier not in mentioned_before],
                "hashtags": list(hashtags),
                "poll_changed": poll_changed,
                "edited_at": row["edited_at"],
            },
        )

    async def engagement(
        self, kind: Engagement, post_id: int, post_author_id: UUID, account_id: UUID, *, undone: bool = False
    ) -> None:
        """Somebody did something with a post (never a repost: its original), or took it back."""
        await self._emit(
            "engagement.recorded",
            post_id,
            {
                "post_id": str(post_id),
                "post_author_id": str(post_author_id),
                "account_id": str(account_id),
                "kind": kind,
                "undone": undone,
                "occurred_at": datetime.now(UTC),
            },
        )

    async def account_created(self, account_id: UUID, username: str, locale: str) -> None:
        """Somebody signed up."""
        event = {"account_id": str(account_id), "username": username, "locale": locale, "created_at": datetime.now(UTC)}
        await self._emit("account.created", account_id, event)

    async def account_updated(self, row: Row) -> None:
        """Somebody's profile is now as in this row of `users`."""
        await self._emit(
            "account.updated",
            row["id"],
            {
                "account_id": str(row["id"]),
                "username": row["username"],
                "display_name": row["display_name"],
                "note": row["note"],
                "locked": row["locked"],
                "bot": row["bot"],
                "updated_at": datetime.now(UTC),
            },
        )

    async def follow_created(self, follower_id: UUID, followee_id: UUID) -> None:
        """Somebody follows somebody from now on."""
        await self._follow("follow.created", "created_at", follower_id, followee_id)

    async def follow_deleted(self, follower_id: UUID, followee_id: UUID) -> None:
        """Somebody no longer follows somebody."""
        await self._follow("follow.deleted", "deleted_at", follower_id, followee_id)

    async def follow_requested(self, follower_id: UUID, followee_id: UUID, *, undone: bool = False) -> None:
        """Somebody asks to follow somebody; or `undone`: the request is gone without having been granted."""
        event = {
            "follower_id": str(follower_id),
            "followee_id": str(followee_id),
            "undone": undone,
            "occurred_at": datetime.now(UTC),
        }
        await self._emit("follow.requested", followee_id, event)

    async def report_created(self, row: Row, reporter_id: UUID) -> None:
        """Somebody reported somebody; `row` is one of `notifications.REPORTS_BY_ID`."""
        await self._emit(
            "report.created",
            row["target_id"],
            {
                "report_id": str(row["id"]),
                "reporter_id": str(reporter_id),
                "target_id": str(row["target_id"]),
                "category": row["category"],
                "post_ids": row["status_ids"],
                "created_at": row["created_at"],
            },
        )

    async def moderation_recorded(self, row: Row) -> None:
        """A moderator did something about an account: id, moderator, target, action, report and created_at of it."""
        await self._emit(
            "moderation.recorded",
            row["target"],
            {
                "action_id": str(row["id"]),
                "target_id": str(row["target"]),
                "moderator_id": _text(row["moderator"]),
                "action": row["action"],
                "report_id": _text(row["report"]),
                "created_at": row["created_at"],
            },
        )

    async def _follow(self, name: str, when: str, follower_id: UUID, followee_id: UUID) -> None:
        event = {"follower_id": str(follower_id), "followee_id": str(followee_id), when: datetime.now(UTC)}
        await self._emit(name, followee_id, event)

    async def _emit(self, name: str, key: object, event: dict[str, Any]) -> None:
        await self._transaction.execute(
            INSERT_EVENT,
            {
                "id": uuid4(),
                "topic": name,
                "key": str(key),
                "payload": self._encoder.encode(name, event),
                "traceparent": current_traceparent(),
            },
        )


def _text(value: object) -> str | None:
    return None if value is None else str(value)
