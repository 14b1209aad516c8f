"""Search: people, hashtags and public posts, in OpenSearch and, without it, in the database.

`Fanline-Search: opensearch` or `database` in the answer says which it was.
"""

import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Literal
from uuid import UUID

from aiohttp import web
from msgspec import Meta, Struct

from api import search_sql
from api.auth.principal import require_user, viewer_of
from api.body import read_query
from api.context import CONTEXT, Context, context_of
from api.database import Transaction
from api.errors import bad_request, unprocessable
from api.paging import post_id
from api.responses import json_response
from api.search_engine import SearchEngine, SearchUnavailable
from api.tags import load_tags
from api.trend_reads import TRENDS, TrendReads
from readmodels import search_queries
from readmodels.entities import Entity
from readmodels.search import POSTS, USERS
from readmodels.search_queries import Page
from readmodels.search_text import SearchText, parse

routes = web.RouteTableDef()

ENGINE = web.AppKey("search engine", SearchEngine)
MAX_QUERY = 500
MAX_LIMIT = 40
MAX_ACCOUNTS = 80
MAX_OFFSET = 1_000
"""Deeper pages cost OpenSearch all pages before them; they are empty."""

_LOCAL_PATH = re.compile(r"/@(?P<username>[A-Za-z0-9_]{1,30})(?:/(?P<id>\d{1,19}))?/?")

Query = Annotated[str, Meta(max_length=MAX_QUERY)]
Offset = Annotated[int, Meta(ge=0)]


class SearchQuery(Struct):
    """Parameters of GET /api/v2/search."""

    q: Query | None = None
    type: Literal["accounts", "hashtags", "statuses", ""] = ""
    resolve: bool = False
    following: bool = False
    account_id: str = ""
    exclude_unreviewed: bool = False
    min_id: str = ""
    max_id: str = ""
    limit: Annotated[int, Meta(ge=1)] = 20
    offset: Offset = 0


class AccountQuery(Struct):
    """Parameters of GET /api/v1/accounts/search."""

    q: Query | None = None
    limit: Annotated[int, Meta(ge=1)] = 40
    offset: Offset = 0
    resolve: bool = False
    following: bool = False


class Finder:
    """One request's search; `source` says who answered."""

    def __init__(self, request: web.Request, viewer: UUID | None) -> None:
        self._context, self._engine, self._viewer = context_of(request), request.app[ENGINE], viewer
        self._trends = request.app[TRENDS]
        self.source = "opensearch"

    async def accounts(self, text: str, page: Page, *, followed: bool = False) -> list[Entity]:
        """People; whoever has exactly this handle comes first, even if the index does not know them yet."""
        context, viewer = self._context, self._viewer
        handle = _local_handle(text, context.domain)
        if handle is None:
            return []
        found: list[UUID] | None = None
        if self._is_up:

            async def limits(transaction: Transaction) -> tuple[list[UUID], list[UUID] | None]:
                hidden = await search_sql.hidden_from(transaction, viewer, search_sql.BLOCKED)
                if not followed:
                    return hidden, None
                most = search_sql.MOST_FOLLOWED
                return hidden, await search_sql.ids(transaction, search_sql.FOLLOWED, viewer=viewer, most=most)

            body = search_queries.users(text, page.upto, *await context.database.read(limits))
            answer = await self._ask(USERS.read_alias(self._engine.prefix), body)
            found = None if answer is None else [UUID(identifier) for identifier in search_queries.found_ids(answer)]

        async def read(transaction: Transaction) -> list[Entity]:
            if found is None:
                people = await search_sql.users_by_prefix(transaction, handle, page, viewer, followed=followed)
            else:
                exact: list[UUID] = []
                if not followed:
                    exact = await search_sql.ids(
                        transaction, search_sql.USERS_BY_HANDLE, handle=handle.lower(), viewer=viewer
                    )
                wanted = page.cut([*exact, *found])
                people = await search_sql.shown(transaction, search_sql.FOUND_USERS, wanted, viewer)
            return await context.entities.account_list(transaction, people, viewer)

        return await context.database.read(read)

    async def hashtags(self, text: str, page: Page, *, reviewed: bool = False) -> list[Entity]:
        """Hashtags that begin so; the one that is called exactly so comes first. `reviewed`: only allowed ones."""
        context, viewer = self._context, self._viewer
        name = text.strip().removeprefix("#").lower()
        if not name or not name.replace("_", "").isalnum():
            return []
        answer = None
        if self._is_up:
            answer = await self._ask(POSTS.read_alias(self._engine.prefix), search_queries.tags(name, page))
        found = None if answer is None else search_queries.found_tags(answer)

        async def read(transaction: Transaction) -> list[str]:
            parameters = {"name": name, "viewer": viewer, "limit": page.limit, "offset": page.offset}
            if found is None:
                return [row["name"] for row in await transaction.rows(search_sql.TAGS_BY_PREFIX, parameters)]
            exact = await transaction.rows(search_sql.TAG_BY_NAME, parameters)
            return page.cut([*(row["name"] for row in exact), *found])

        return await load_tags(self._trends, await context.database.read(read), viewer, reviewed=reviewed)

    async def statuses(self, text: SearchText, page: Page, author: UUID | None = None) -> list[Entity]:
        """Posts; the viewer's own newest ones are among them, even if the index does not have them yet.

        Where results do not come by time, they come first.
        """
        context, viewer = self._context, self._viewer
        if text.author is not None:
            author = await self._author(text.author)
            if author is None:
                return []
        if text.is_empty and author is None:
            return []
        found: list[int] | None = None
        if self._is_up:
            hidden = await context.database.read(partial(search_sql.hidden_from, viewer=viewer))
            body = search_queries.posts(text, page.upto, context.clock.now_ms(), hidden, author)
            answer = await self._ask(POSTS.read_alias(self._engine.prefix), body)
            found = None if answer is None else [int(identifier) for identifier in search_queries.found_ids(answer)]

        async def read(transaction: Transaction) -> list[Entity]:
            if found is None:
                posts = await search_sql.newest_posts(transaction, text, page, viewer, author)
            else:
                own: list[int] = []
                if viewer is not None:
                    own = await search_sql.own_posts(transaction, text, page.upto, viewer, author, context.clock)
                # The page is cut before the rules are applied: what they take out moves nothing to another page.
                posts = await search_sql.shown(transaction, search_sql.FOUND_POSTS, page.mixed(own, found), viewer)
            return await context.entities.statuses(transaction, posts, viewer)

        return await context.database.read(read)

    @property
    def _is_up(self) -> bool:
        return self.source == "opensearch"

    async def _ask(self, alias: str, body: search_queries.Body) -> search_queries.Body | None:
        """The answer, or None when the database has to give it."""
        try:
            return await self._engine.search(alias, body)
        except SearchUnavailable:
            self.source = "database"
            return None

    async def _author(self, handle: str) -> UUID | None:
        if handle == "me":
            return self._viewer
        row = await self._context.database.row(search_sql.USERS_BY_HANDLE, {"handle": handle, "viewer": self._viewer})
        return None if row is None else row["id"]


@routes.get("/api/v2/search")
async def search(request: web.Request) -> web.Response:
    """People, hashtags and posts that match `q`; of one kind with `type`, which `offset` needs."""
    wanted = read_query(request, SearchQuery)
    viewer = viewer_of(request)
    text = _text(wanted.q)
    if wanted.following and viewer is None:
        raise unprocessable("This method requires an authenticated user")
    page = _page(wanted)
    author = _account(wanted.account_id)
    context = context_of(request)
    finder = Finder(request, viewer)
    found: dict[str, list[Entity]] = {"accounts": [], "statuses": [], "hashtags": []}
    if text.startswith(context.public_url) and (local := _LOCAL_PATH.fullmatch(text[len(context.public_url) :])):
        found |= await _at_address(context, local, viewer)
    else:
        first = Page(page.limit, page.offset if wanted.type else 0)
        kinds = [wanted.type] if wanted.type else ["accounts", "statuses", "hashtags"]
        if first.offset > MAX_OFFSET:
            kinds = []
        if "accounts" in kinds and not text.startswith("#"):
            found["accounts"] = await finder.accounts(text, first, followed=wanted.following)
        if "hashtags" in kinds and not text.startswith("@"):
            found["hashtags"] = await finder.hashtags(text, first, reviewed=wanted.exclude_unreviewed)
        if "statuses" in kinds and not text.startswith("@"):
            posts = Page(page.limit, first.offset, page.min_id, page.max_id)
            found["statuses"] = await finder.statuses(parse(text), posts, author)
    return json_response(found, headers={"Fanline-Search": finder.source})


@routes.get("/api/v1/accounts/search")
async def account_search(request: web.Request) -> web.Response:
    """People whose handle or name matches `q`; with `following`, only whom the caller follows."""
    viewer = require_user(request, "read:accounts")
    wanted = read_query(request, AccountQuery)
    finder = Finder(request, viewer)
    text, page = _text(wanted.q), Page(min(wanted.limit, MAX_ACCOUNTS), wanted.offset)
    found = page.offset <= MAX_OFFSET
    accounts = await finder.accounts(text, page, followed=wanted.following) if found else []
    return json_response(accounts, headers={"Fanline-Search": finder.source})


async def serve_search(app: web.Application) -> AsyncIterator[None]:
    """For `cleanup_ctx`, after the context is there: what searches and trends are read with."""
    app[ENGINE] = engine = SearchEngine(app[CONTEXT].settings)
    app[TRENDS] = TrendReads(app[CONTEXT])
    yield
    await engine.close()


async def _at_address(context: Context, local: re.Match[str], viewer: UUID | None) -> dict[str, list[Entity]]:
    """The person or the status whose address was searched for."""

    async def read(transaction: Transaction) -> dict[str, list[Entity]]:
        handle = local["username"].lower()
        people = await search_sql.ids(transaction, search_sql.USERS_BY_HANDLE, handle=handle, viewer=viewer)
        if local["id"] is None:
            return {"accounts": await context.entities.account_list(transaction, people, viewer)}
        posts = await search_sql.shown(transaction, search_sql.VISIBLE_POSTS, [int(local["id"])], viewer)
        return {"statuses": await context.entities.statuses(transaction, posts, viewer)}

    return await context.database.read(read)


def _text(given: str | None) -> str:
    text = (given or "").strip()
    if not text:
        raise bad_request("q is missing: say what to search for")
    return text


def _page(wanted: SearchQuery) -> Page:
    try:
        cursors = [post_id(text) if text else None for text in (wanted.min_id, wanted.max_id)]
    except ValueError as error:
        raise bad_request("min_id and max_id must be ids of statuses") from error
    return Page(min(wanted.limit, MAX_LIMIT), wanted.offset, *cursors)


def _account(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError as error:
        raise bad_request("account_id is not the id of an account") from error


def _local_handle(text: str, domain: str) -> str | None:
    """What may be a handle of this server; None when it is one of another server."""
    name, _, host = text.removeprefix("@").partition("@")
    return name.lower() if not host or host.lower() == domain.lower() else None
