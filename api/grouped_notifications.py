"""Notifications in groups: Mastodon's /api/v2/notifications."""

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from api.auth.principal import require_user
from api.body import read_query
from api.context import context_of
from api.database import Transaction
from api.errors import not_found, unprocessable
from api.notification_entities import notification_entities
from api.notification_group_reads import count_unread_groups, page_of_groups
from api.notification_reads import reader_of
from api.notifications import Selection
from api.outbox import Outbox
from api.paging import link_header, read_page
from api.responses import json_response
from api.writes import write
from readmodels.entities import Entity, timestamp
from readmodels.home_rules import Page
from readmodels.inbox import Item
from readmodels.notification_groups import SAMPLE_ACCOUNTS
from readmodels.notification_pages import Group, group_of, items_of, span_of
from readmodels.notifications import COLUMNS, GROUPED_TYPES, LISTABLE, UNGROUPED, UNSUSPENDED

routes = web.RouteTableDef()

PARTIAL = ("id", "acct", "locked", "bot", "url", "avatar", "avatar_static")

# The key of a group gives the ids between which it lies; that of a single notification its id.
OF_GROUP = f"{LISTABLE} AND n.id BETWEEN %(from)s AND %(to)s AND (%(key)s::text IS NULL OR n.group_key = %(key)s)"
SELECT_GROUP = f"SELECT {COLUMNS} FROM notifications n WHERE {OF_GROUP} AND {UNSUSPENDED}"
DISMISS_GROUP = f"UPDATE notifications n SET dismissed_at = now() WHERE {OF_GROUP}"


class GroupSelection(Selection):
    """Which groups are wanted, and how they are shown."""

    grouped_types: list[str] | None = None
    expand_accounts: str = "full"

    def grouped(self) -> frozenset[str]:
        """The types that are grouped: those asked for among those that can be."""
        return frozenset(GROUPED_TYPES if self.grouped_types is None else self.grouped_types) & frozenset(GROUPED_TYPES)

    def partial(self) -> bool:
        """Whether accounts that are only shown by picture are sent in part; raises `ApiError` 422."""
        if self.expand_accounts not in ("full", "partial_avatars"):
            raise unprocessable("Validation failed: expand_accounts must be full or partial_avatars")
        return self.expand_accounts == "partial_avatars"


@routes.get("/api/v2/notifications")
async def grouped_notifications(request: web.Request) -> web.Response:
    """The caller's notifications in groups, newest first, with `Link` paging."""
    viewer = require_user(request, "read:notifications")
    selection = read_query(request, GroupSelection)
    partial, asked = selection.partial(), read_page(request, 40, 80)
    page = Page(asked.limit, asked.max_id or None, asked.since_id, asked.min_id)
    groups = await page_of_groups(request, viewer, page, selection.wanted(), selection.grouped())
    body = await _show(request, groups, partial=partial, paged=True)
    if not groups:
        return json_response(body)
    newest, oldest = max(each.items[0].id for each in groups), min(each.oldest for each in groups)
    return json_response(body, headers=link_header(request, context_of(request).public_url, newest, oldest))


@routes.get("/api/v2/notifications/unread_count")
async def unread_groups(request: web.Request) -> web.Response:
    """How many groups have a notification above the caller's marker, up to a limit."""
    viewer = require_user(request, "read:notifications")
    limit = read_page(request, 100, 1_000).limit
    selection = read_query(request, GroupSelection)
    count = await count_unread_groups(request, viewer, selection.wanted(), selection.grouped(), limit)
    return json_response({"count": count})


@routes.get("/api/v2/notifications/{group_key}")
async def notification_group(request: web.Request) -> web.Response:
    """One group."""
    items = await _group(request)
    return json_response(await _show(request, [group_of(request.match_info["group_key"], items)]))


@routes.get("/api/v2/notifications/{group_key}/accounts")
async def group_accounts(request: web.Request) -> web.Response:
    """Who is in a group, the newest first, with `Link` paging by notification."""
    viewer = require_user(request, "read:notifications")
    items = await _group(request)
    page, context = read_page(request, 40, 80), context_of(request)
    kept = [
        item
        for item in items
        if item.id > max(page.since_id or 0, page.min_id or 0) and (page.max_id is None or item.id < page.max_id)
    ]
    kept = kept[-page.limit :] if page.ascending else kept[: page.limit]
    ids = [item.from_account_id for item in kept if item.from_account_id is not None]

    async def body(transaction: Transaction) -> list[Entity]:
        return await context.entities.account_list(transaction, ids, viewer)

    headers = link_header(request, context.public_url, kept[0].id, kept[-1].id) if kept else {}
    return json_response(await context.database.read(body), headers=headers)


@routes.post("/api/v2/notifications/{group_key}/dismiss")
async def dismiss_group(request: web.Request) -> web.Response:
    """Dismiss every notification of a group."""
    viewer = require_user(request, "write:notifications")
    parameters = _parameters(request)

    async def body(transaction: Transaction, _outbox: Outbox) -> None:
        if not await transaction.execute(DISMISS_GROUP, {"user_id": viewer, **parameters}):
            raise not_found()

    await write(context_of(request), viewer, body)
    return json_response({})


async def _group(request: web.Request) -> list[Item]:
    viewer = require_user(request, "read:notifications")
    rows = await context_of(request).database.rows(SELECT_GROUP, {"user_id": viewer, **_parameters(request)})
    if not rows:
        raise not_found()
    return items_of(rows)


def _parameters(request: web.Request) -> dict[str, Any]:
    key = request.match_info["group_key"]
    span = span_of(key)
    if span is None:
        raise not_found()
    return {"key": None if key.startswith(UNGROUPED) else key, "from": span[0], "to": span[1]}


async def _show(request: web.Request, groups: Sequence[Group], *, partial: bool = False, paged: bool = False) -> Entity:
    """The GroupedNotificationsResults of groups; `paged` if they are those of a page."""
    context, reader = context_of(request), reader_of(request)
    viewer = require_user(request)
    newest = await reader.rows([each.items[0] for each in groups], viewer)
    people = {
        item.from_account_id: None for each in groups for item in _sample(each) if item.from_account_id is not None
    }

    async def body(transaction: Transaction) -> Entity:
        loaded = await notification_entities(transaction, newest, viewer, context.entities)
        accounts = await context.entities.account_list(transaction, list(people), viewer)
        entities = {entity["id"]: entity for entity in loaded}
        # One that is missing was deleted between two queries.
        shown = [each for each in groups if str(each.items[0].id) in entities]
        return _results(shown, entities, accounts, partial=partial, paged=paged)

    return await context.database.read(body)


def _results(
    groups: Sequence[Group],
    entities: Mapping[str, Entity],
    accounts: list[Entity],
    *,
    partial: bool,
    paged: bool,
) -> Entity:
    shown = [_group_entity(each, entities[str(each.items[0].id)], paged=paged) for each in groups]
    statuses = {entity["status"]["id"]: entity["status"] for entity in entities.values() if "status" in entity}
    answer = {"accounts": accounts, "statuses": list(statuses.values()), "notification_groups": shown}
    if partial:
        full = {each["sample_account_ids"][0] for each in shown}
        answer["accounts"] = [account for account in accounts if account["id"] in full]
        answer["partial_accounts"] = [
            {name: account[name] for name in PARTIAL} for account in accounts if account["id"] not in full
        ]
    return answer


def _group_entity(group: Group, entity: Entity, *, paged: bool) -> Entity:
    newest = group.items[0]
    shown: Entity = {
        "group_key": group.key,
        "notifications_count": group.count,
        "type": newest.type,
        "most_recent_notification_id": str(newest.id),
        "sample_account_ids": [str(item.from_account_id) for item in _sample(group)],
    }
    if paged:
        shown |= {
            "page_min_id": str(group.oldest),
            "page_max_id": str(newest.id),
            "latest_page_notification_at": timestamp(newest.created_at),
        }
    if "status" in entity:
        shown["status_id"] = entity["status"]["id"]
    return shown | {name: entity[name] for name in ("report", "moderation_warning") if name in entity}


def _sample(group: Group) -> list[Item]:
    """The newest notification of each of the group's newest people."""
    people: dict[object, Item] = {}
    for item in group.items:
        people.setdefault(item.from_account_id, item)
    return list(people.values())[:SAMPLE_ACCOUNTS]
