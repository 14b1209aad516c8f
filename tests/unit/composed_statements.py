"""Statements that functions put together from pieces: the functions run here, over a database that notes them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID

from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from psycopg import sql

from api import (
    accounts,
    engagement_lists,
    follow_requests,
    notification_policy,
    public_timelines,
    relationships,
    search_sql,
    statuses,
    tags,
)
from api.auth.principal import PRINCIPAL, Principal
from api.context import CONTEXT
from connectors.present import PresentRows
from dataflows.push import PushCarrier
from fanline.changes import RowChange
from fanline.clock import SystemClock
from fanline.settings import Settings
from fanline.vapid import new_private_key
from readmodels import search_text
from readmodels.effects import Query
from readmodels.notification_pages import Page as NotificationPage
from readmodels.notification_pages import Wanted, page_query
from readmodels.notifications import TYPES
from readmodels.search_queries import Page
from readmodels.search_text import SearchText
from sinks import replica, replica_verify

VIEWER, OTHER = UUID(int=1), UUID(int=2)
PERSON = "00000000-0000-0000-0000-000000000005"
CURSORS = ("", "max_id=9&since_id=5", "min_id=5", "max_id=9&min_id=5")
PEOPLE = ("", f"max_id={PERSON}&since_id={PERSON}", f"min_id={PERSON}")
MOMENTS = ("", "max_id=1795353890435123-5&since_id=1795353890435123-4", "min_id=1795353890435123-5")
MOMENTS_OF_PEOPLE = ("", f"max_id=1795353890435123-{PERSON}", f"min_id=1795353890435123-{PERSON}")
STATUSES = ("exclude_replies=true&exclude_reblogs=true&only_media=true&tagged=x", "pinned=true", "")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Listing = tuple[Handler, Mapping[str, str], tuple[str, ...]]

LISTS: tuple[Listing, ...] = (
    (accounts.account_statuses, {"id": PERSON}, tuple(f"{a}&{b}" for a in STATUSES for b in CURSORS)),
    (public_timelines.public, {}, tuple(f"only_media=true&{each}" for each in CURSORS)),
    (public_timelines.tagged, {"hashtag": "x"}, tuple(f"only_media=true&all[]=a&none[]=b&{each}" for each in CURSORS)),
    (engagement_lists.favourites, {}, MOMENTS),
    (engagement_lists.bookmarks, {}, MOMENTS),
    (engagement_lists.favourited_by, {"id": "7"}, MOMENTS_OF_PEOPLE),
    (follow_requests.follow_requests, {}, MOMENTS_OF_PEOPLE),
    (statuses.reblogged_by, {"id": "7"}, CURSORS),
    (notification_policy.requests, {}, CURSORS),
    (tags.followed_tags, {}, PEOPLE),
    (relationships.followers, {"id": PERSON}, PEOPLE),
    (relationships.following, {"id": PERSON}, PEOPLE),
    (relationships.blocks, {}, PEOPLE),
    (relationships.mutes, {}, PEOPLE),
)
"""Routes that answer pages of lists, what their paths name, and query strings that name every piece."""


class Notes:
    """A database, a transaction and a connection in one: it has nothing and keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def read(self, body: Callable[[Any], Awaitable[Any]]) -> Any:
        return await body(self)

    async def rows(self, query: str, _parameters: object = None) -> list[Any]:
        self.asked.append(query)
        return []

    async def row(self, query: str, _parameters: object = None) -> dict[str, Any]:
        self.asked.append(query)
        return {"id": VIEWER}

    def execute(self, query: sql.Composed, _parameters: object = None) -> Any:
        self.asked.append(query.as_string())
        return SimpleNamespace(fetchall=list, fetchone=lambda: None, description=None)


def composed() -> Iterator[tuple[str, str]]:
    """Where each statement is put together, and the statement."""
    for handler, path, queries in LISTS:
        for query in queries:
            yield from _noted(f"{handler.__module__}.{handler.__name__}?{query}", _listed, handler, path, query)
    yield from _noted("api.search_sql", _searched)
    yield from _noted("dataflows.push", _keyed)
    for above in (NotificationPage(20), NotificationPage(20, max_id=9, since_id=5), NotificationPage(20, min_id=5)):
        for wanted in (Wanted(frozenset(TYPES)), Wanted(frozenset(TYPES[:2]), OTHER, filtered=True)):
            yield "readmodels.notification_pages.page_query", page_query(VIEWER, above, wanted).sql
    yield from _replicated()


def _noted(where: str, run: Callable[..., Awaitable[None]], *arguments: Any) -> Iterator[tuple[str, str]]:
    notes = Notes()
    asyncio.run(run(notes, *arguments))
    assert notes.asked, where
    yield from ((where, query) for query in notes.asked)


async def _listed(notes: Notes, handler: Handler, path: Mapping[str, str], query: str) -> None:
    application = web.Application()
    entities = AsyncMock()
    for name in ("statuses", "account_list"):
        getattr(entities, name).return_value = []
    entities.accounts.return_value = {}
    application[CONTEXT] = SimpleNamespace(database=notes, entities=entities, public_url="")  # type: ignore[misc]
    request = make_mocked_request("GET", f"/?{query.strip('&')}", match_info=dict(path), app=application)
    scopes = frozenset(["read", "write"])
    request[PRINCIPAL] = Principal(VIEWER, VIEWER, VIEWER, scopes, 1 << 60)
    try:
        await handler(request)
    except KeyError:
        # What comes behind the query needs more of an application.
        assert notes.asked


async def _searched(notes: Any) -> None:
    page, cursors = Page(20), Page(20, 5, min_id=1, max_id=9)
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    nothing = SearchText(words=["a"])
    everything = SearchText(
        ["a"], ["b c"], ["d"], ["x"], None, "de", dict.fromkeys(search_text.FLAGS.values(), True), moment, moment
    )
    opposite = SearchText(flags=dict.fromkeys(search_text.FLAGS.values(), False))
    for followed in (True, False):
        await search_sql.users_by_prefix(notes, "a", page, VIEWER, followed=followed)
    for text in (nothing, everything, opposite):
        for part in (page, cursors):
            for author in (None, OTHER):
                await search_sql.own_posts(notes, text, part, VIEWER, author, SystemClock())
                await search_sql.newest_posts(notes, text, part, VIEWER, author)


async def _keyed(notes: Notes) -> None:
    async def rows(query: Query) -> list[Any]:
        notes.asked.append(query.sql)
        return [{"private_key": new_private_key()}] if len(notes.asked) > 2 else []

    carrier = PushCarrier(Settings())
    await carrier.open(rows)
    await carrier.close()


def _replicated() -> Iterator[tuple[str, str]]:
    """What is sent to another database while it is copied, and asked about single rows."""
    columns = {"id": "int8", "author_id": "uuid", "tags": "_text", "payload": "bytea", "created_at": "timestamptz"}
    for key in (("id",), ("id", "author_id")):
        table = replica.Table("posts", columns, key)
        values = dict.fromkeys(columns, "1")
        for row in (
            replica.Row(table, values, False, None),
            replica.Row(table, values | {"payload": replica.UNCHANGED}, False, None),
            replica.Row(table, dict.fromkeys(key, "1"), True, None),
            replica.Row(replica.Table("posts", dict.fromkeys(key, "int8"), key), dict.fromkeys(key, "1"), False, None),
        ):
            yield from (("sinks.replica.statements", query.sql) for query in replica.statements(row))
        for above in (None, (1, 2)[: len(key)]):
            for upto in (None, (1, 2)[: len(key)]):
                notes: Any = Notes()
                replica_verify._rows(notes, table, above, upto, 5 if above else None)
                yield "sinks.replica_verify", notes.asked[0]
    present, asked = PresentRows(Settings()), Notes()
    present._keys["likes"] = ["user_id", "post_id"]
    present._execute = asked.execute  # type: ignore[method-assign,assignment]
    present(RowChange("likes", "c", {"user_id": PERSON, "post_id": 7}, (0, 0), 0))
    yield "connectors.present", asked.asked[0]
