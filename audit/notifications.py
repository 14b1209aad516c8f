"""Holds inboxes against the database, and stored notifications against what they tell of."""

from collections.abc import Sequence
from uuid import UUID

from audit.compare import Difference, compare_sequences
from audit.model import Model, people
from audit.stores import Stores
from readmodels import inbox
from readmodels.effects import Query, command
from readmodels.notification_queries import STALE_OF
from readmodels.notifications import COLUMNS, LISTABLE

DAY_SECONDS = 86_400

ABOVE = f"SELECT {COLUMNS} FROM notifications n WHERE {LISTABLE} AND n.id > %(floor)s ORDER BY n.id DESC"
DELETE = "DELETE FROM notifications WHERE id = ANY(%(ids)s::bigint[]) RETURNING id"


def check_inboxes(stores: Stores, users: Sequence[UUID]) -> dict[UUID, Difference | None]:
    """Inboxes that are there: every notification above the floor, in order, and the marker. Others are None."""
    found: dict[UUID, Difference | None] = {}
    for user, members in zip(users, stores.redis([inbox.read(user) for user in users]), strict=True):
        kept = inbox.parse(members)
        if kept is None:
            found[user] = None
            continue
        expected = [inbox.item_of(row) for row in stores.rows(Query(ABOVE, {"user_id": user, "floor": kept.floor}))]
        markers = stores.rows(Query(inbox.MARKERS, {"users": [user]}))
        difference = compare_sequences(expected, list(kept.items))
        marker = markers[0]["last_read_id"] if markers else 0
        found[user] = difference or Difference(missing=int(kept.marker != marker))
    return found


def repair_inboxes(stores: Stores, users: Sequence[UUID]) -> None:
    """Drops the inboxes and fills them from the database."""
    settings = stores.settings
    for user in users:
        stores.redis([command(inbox.inbox_key(user), b"DEL")])
        stores.drive(inbox.fill(user, settings.notifications_cap, settings.timeline_warm_days * DAY_SECONDS))


def check_notifications(stores: Stores, users: Sequence[UUID]) -> dict[UUID, Difference | None]:
    """No notification tells of a like, repost, follow or request that is not there any more.

    That none is missing cannot be seen in the tables: what was loaded without events is told to nobody.
    """
    stale = _stale(stores, users)
    return {user: Difference(extra=len(stale.get(user, ()))) for user in users}


def repair_notifications(stores: Stores, users: Sequence[UUID]) -> None:
    """Removes those; what has come again meanwhile is another notification."""
    ids = [identifier for those in _stale(stores, users).values() for identifier in those]
    if ids:
        stores.rows(Query(DELETE, {"ids": ids}))


def notification_models() -> tuple[Model, Model]:
    """The lines of the registry."""
    return (
        Model("notifications", people, check_notifications, repair_notifications, "notifications"),
        Model("inboxes", people, check_inboxes, repair_inboxes, "dispatcher"),
    )


def _stale(stores: Stores, users: Sequence[UUID]) -> dict[UUID, list[int]]:
    found: dict[UUID, list[int]] = {}
    for row in stores.rows(Query(STALE_OF, {"users": list(users)})):
        found.setdefault(row["user_id"], []).append(row["id"])
    return found
