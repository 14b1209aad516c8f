"""Which notifications a page shows, and how they are grouped. Pure.

A group is shown where its newest notification on the page is. A page ends where a further group would begin, so that no
notification is left out between two pages; older ones of the same group come again with the next page, as in Mastodon,
and clients merge them by their key.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fanline.ids import first_id_at
from readmodels.effects import Query
from readmodels.home_rules import Page
from readmodels.inbox import Inbox, Item, item_of
from readmodels.notifications import COLUMNS, GROUP_HOURS, GROUPED_TYPES, SHOWN, SHOWN_OR_FILTERED, TYPES, UNGROUPED

SPAN_MS = GROUP_HOURS * 3_600_000
# By so much the id of a notification may be later than the fact that it tells of (readmodels/notification_rules.py).
PROBING_MS = 60_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which notifications are asked for."""

    types: frozenset[str] = frozenset(TYPES)
    account_id: UUID | None = None
    filtered: bool = False
    """Also those that the policy has filtered, which are in no inbox."""

    def matches(self, item: Item) -> bool:
        """Whether the notification is asked for."""
        return item.type in self.types and self.account_id in (None, item.from_account_id)


@dataclass(frozen=True, slots=True)
class Group:
    """Notifications shown as one."""

    key: str
    items: Sequence[Item]
    """Those on the page that were read, newest first; of a large group at least its newest ones."""
    count: int
    """How many it has, up to its newest one on the page."""
    oldest: int
    """The id of its oldest one on the page."""


def select(inbox: Inbox, page: Page, wanted: Wanted) -> list[Item] | None:
    """The page's notifications in an inbox, newest first, as far down as it is complete.

    None where the database has to answer: the page is to begin below the floor, or filtered ones are asked for. A page
    that is not full goes on below the floor (`below`).
    """
    if wanted.filtered or (page.min_id is not None and page.above < inbox.floor):
        return None
    below = page.max_id
    matching = [
        item
        for item in inbox.items
        if item.id > page.above and (below is None or item.id < below) and wanted.matches(item)
    ]
    return matching[-page.limit :] if page.min_id is not None else matching[: page.limit]


def rest(inbox: Inbox, page: Page, found: int) -> Page | None:
    """What is left of a page, of which so many are found, for the database to answer; None if it is complete."""
    if found == page.limit or page.min_id is not None or page.above >= inbox.floor:
        return None
    below = inbox.floor + 1
    return Page(page.limit - found, min(page.max_id or below, below), page.since_id)


def page_query(user_id: UUID, page: Page, wanted: Wanted) -> Query:
    """The oracle of a page; with `min_id` the rows come oldest first."""
    condition = conditions_of(page, wanted)
    order = "DESC" if page.min_id is None else "ASC"
    return Query(
        f"SELECT {COLUMNS} FROM notifications n WHERE {condition} ORDER BY n.id {order} LIMIT %(limit)s",
        parameters_of(user_id, page, wanted),
    )


def conditions_of(page: Page, wanted: Wanted) -> str:
    """What is true of the rows `n` that are asked for; `parameters_of` has its parameters."""
    conditions = SHOWN_OR_FILTERED if wanted.filtered else SHOWN
    conditions += " AND n.id > %(above)s"
    if page.max_id is not None:
        conditions += " AND n.id < %(below)s"
    if wanted.types != frozenset(TYPES):
        conditions += " AND n.type = ANY(%(types)s::text[])"
    if wanted.account_id is not None:
        conditions += " AND n.from_account_id = %(account_id)s::uuid"
    return conditions


def parameters_of(user_id: UUID, page: Page, wanted: Wanted) -> dict[str, Any]:
    """The parameters of `conditions_of`, and the limit."""
    return {
        "user_id": user_id,
        "above": page.above,
        "below": page.max_id,
        "types": sorted(wanted.types),
        "account_id": wanted.account_id,
        "limit": page.limit,
    }


def items_of(rows: Iterable[Mapping[str, Any]]) -> list[Item]:
    """The notifications in rows of `page_query`, newest first."""
    return sorted(map(item_of, rows), reverse=True)


def shown_key(item: Item, grouped: frozenset[str]) -> str:
    """The key of the group that a reader who groups these types shows the notification in."""
    return item.group_key if item.type in grouped else f"{UNGROUPED}{item.id}"


def group(items: Sequence[Item], limit: int, grouped: frozenset[str] = frozenset(GROUPED_TYPES)) -> list[Group]:
    """The first groups of notifications that are given newest first."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        key = shown_key(item, grouped)
        if key not in groups:
            if len(groups) == limit:
                break
            groups[key] = []
        groups[key].append(item)
    return [group_of(key, members) for key, members in groups.items()]


def group_of(key: str, items: Sequence[Item]) -> Group:
    """The group that has these notifications, newest first, and no more."""
    return Group(key, items, len(items), items[-1].id)


def span_of(key: str) -> tuple[int, int] | None:
    """Ids between which all notifications of a group lie (from, to); None if there can be no such group."""
    if key.startswith(UNGROUPED):
        number = _number(key.removeprefix(UNGROUPED))
        return None if number is None else (number, number)
    kind, _, last = key.rpartition("-")
    span = _number(last)
    if span is None or span > 10_000_000 or kind.partition("-")[0] not in GROUPED_TYPES:
        return None
    return first_id_at(span * SPAN_MS), first_id_at((span + 1) * SPAN_MS + PROBING_MS)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
