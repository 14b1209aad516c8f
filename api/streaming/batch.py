"""What records of the log mean for the streams: read and checked as a whole before anything is done with them.

So a record that is not as this process knows it is passed over by itself, and nothing that comes after it fails on it.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from api.streaming.recent import PostEvent, post_event
from connectors.offsets import Partition
from fanline.changes import RowChange
from fanline.ids import MAX_ID

DISPATCHED = "notification.dispatched"


class NewFollow(NamedTuple):
    """Somebody has begun to follow an author (a 16-byte id); `position` is where that is in the database's log."""

    follower: UUID
    author: bytes
    position: tuple[int, int]


@dataclass(slots=True)
class Batch:
    """What was read at once, in the log's order a partition."""

    posts: list[PostEvent] = field(default_factory=list)
    follows: list[NewFollow] = field(default_factory=list)
    related: set[UUID] = field(default_factory=set)
    """Whose relations or filters have changed."""
    filtered: set[UUID] = field(default_factory=set)
    """Whose filters have changed."""
    notifications: dict[UUID, list[int]] = field(default_factory=dict)
    """Ids of what was dispatched, by whom it tells."""
    transactions: set[int] = field(default_factory=set)
    """Those that queries have to see before the changes are worked on."""
    recorded: list[tuple[UUID, int]] = field(default_factory=list)
    """Outbox ids of the events, and when Kafka got them in ms."""

    def __bool__(self) -> bool:
        return bool(self.posts or self.related or self.notifications)

    def add_change(self, change: RowChange, place: Partition, offset: int) -> None:
        """Take a change of a row, from a record at this place; all of it, or raises one of `UNUSABLE`."""
        row = change.row
        people: set[UUID] = set()
        posts: list[PostEvent] = []
        follows: list[NewFollow] = []
        match change.table:
            case "posts":
                event = post_event(change, place, offset)
                if event is None:
                    return
                posts.append(event)
            case "follows":
                people.add(UUID(row["follower_id"]))
                if change.op == "c":
                    author = UUID(row["followee_id"]).bytes
                    follows += [NewFollow(follower, author, change.position) for follower in people]
            case "blocks":
                people |= {UUID(row["blocker_id"]), UUID(row["blocked_id"])}
            case "mutes":
                people.add(UUID(row["muter_id"]))
            case "filters":
                people.add(UUID(row["user_id"]))
        if change.transaction is not None:
            if not 0 <= change.transaction < 1 << 32:
                raise ValueError(f"{change.transaction} is no transaction.")
            self.transactions.add(change.transaction)
        self.posts += posts
        self.follows += follows
        self.related |= people
        if change.table == "filters":
            self.filtered |= people

    def add_event(self, topic: str, fields: dict[str, Any], outbox_id: UUID | None, ms: int) -> None:
        """Take a domain event that Kafka got at this time; raises as `add_change` does."""
        if topic != DISPATCHED:
            return
        person, identifier = UUID(fields["account_id"]), int(fields["notification_id"])
        if not 0 < identifier <= MAX_ID:
            raise ValueError(f"{identifier} is no id.")
        self.notifications.setdefault(person, []).append(identifier)
        if outbox_id is not None:
            self.recorded.append((outbox_id, ms))
