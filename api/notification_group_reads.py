"""Notifications as they are read in groups: from a slice of them where it tells all, from the database otherwise."""

from dataclasses import dataclass, replace
from uuid import UUID

from aiohttp import web

from api.context import context_of
from api.notification_reads import reader_of, shown_marker
from api.notification_unread import unread
from readmodels.effects import Query
from readmodels.home_rules import Page
from readmodels.notification_groups import COUNT_GROUPS, heads_query, members_query
from readmodels.notification_pages import Group, Wanted, group, items_of, shown_key, span_of
from readmodels.notifications import UNGROUPED

# Notifications in a slice, as groups hold more than one; more are not read for however many groups.
ITEMS_A_GROUP = 10
MOST_ITEMS = 1_000


@dataclass(frozen=True, slots=True)
class _Found:
    """The groups of a page."""

    groups: list[Group]
    read_from: int
    """Every notification from this id up to the end of the page was read."""
    bottom: int
    """The page reaches down to this id."""


async def page_of_groups(
    request: web.Request, viewer: UUID, page: Page, wanted: Wanted, grouped: frozenset[str]
) -> list[Group]:
    """The groups of a page, at most its limit, newest first, each with all that it has."""
    found = await _page(request, viewer, page, wanted, grouped)
    spans = {each.key: span_of(each.key) for each in found.groups if not each.key.startswith(UNGROUPED)}
    cut = [(each, span) for each in found.groups if (span := spans.get(each.key)) and span[0] < found.read_from]
    if not cut:
        return found.groups
    parameters = {
        "user_id": viewer,
        "keys": [each.key for each, _ in cut],
        "newest": [each.items[0].id for each, _ in cut],
        "bottom": found.bottom,
        "from": min(span[0] for _, span in cut),
        "to": max(each.items[0].id for each, _ in cut),
    }
    counted = {row["key"]: row for row in await context_of(request).database.rows(COUNT_GROUPS, parameters)}
    return [
        replace(each, count=row["count"], oldest=row["oldest"] or each.oldest)
        if (row := counted.get(each.key))
        else each
        for each in found.groups
    ]


async def count_unread_groups(
    request: web.Request, viewer: UUID, wanted: Wanted, grouped: frozenset[str], limit: int
) -> int:
    """How many groups have a notification above the viewer's marker, up to a limit."""
    size = min(limit * ITEMS_A_GROUP, MOST_ITEMS)
    items = await unread(request, viewer, wanted, size)
    keys = {shown_key(item, grouped) for item in items}
    if len(items) < size or len(keys) >= limit:
        return min(limit, len(keys))
    rest = Page(limit - len(keys), max_id=items[-1].id, since_id=await shown_marker(request, viewer))
    shown = Wanted(wanted.types, wanted.account_id)
    return len(keys) + len(await _heads(request, heads_query(viewer, rest, shown, grouped, keys)))


async def _page(request: web.Request, viewer: UUID, page: Page, wanted: Wanted, grouped: frozenset[str]) -> _Found:
    """A page from a slice of notifications; where that is full and has too few groups, the database goes on."""
    size = min(page.limit * ITEMS_A_GROUP, MOST_ITEMS)
    items = await reader_of(request).read(viewer, replace(page, limit=size), wanted)
    upwards = page.min_id is not None
    groups = group(items[::-1] if upwards else items, page.limit + 1, grouped)
    if len(items) < size or len(groups) > page.limit:
        groups = groups[: page.limit]
        if upwards:
            # The oldest groups of the range: grouped from below, shown from above.
            groups = sorted(map(_reversed, groups), key=lambda each: each.items[0].id, reverse=True)
        bottom = min((each.oldest for each in groups), default=0)
        return _Found(groups, page.above + 1 if len(items) < size else items[-1].id, bottom)
    keys = [each.key for each in groups]
    further = page.limit + 1 - len(groups)
    if upwards:
        beyond = Page(further, max_id=page.max_id, since_id=page.since_id, min_id=items[0].id)
        heads = await _heads(request, heads_query(viewer, beyond, wanted, grouped, keys))
        # It ends where one group too many would begin; what it has is then read from above.
        top = heads[-1] if len(heads) == further else page.max_id
        return await _page(request, viewer, Page(page.limit, top, page.above), wanted, grouped)
    below = Page(further, max_id=items[-1].id, since_id=page.above)
    heads = await _heads(request, heads_query(viewer, below, wanted, grouped, keys))
    bottom = heads[-1] + 1 if len(heads) == further else page.above + 1
    query = members_query(viewer, replace(below, since_id=bottom - 1), wanted, grouped, keys)
    members = items_of(await context_of(request).database.rows(query.sql, query.parameters)) if heads else []
    return _Found(group([*items, *members], page.limit, grouped), items[-1].id, bottom)


async def _heads(request: web.Request, query: Query) -> list[int]:
    return [row["id"] for row in await context_of(request).database.rows(query.sql, query.parameters)]


def _reversed(group: Group) -> Group:
    items = group.items[::-1]
    return replace(group, items=items, oldest=items[-1].id)
