"""Mastodon's paging: `max_id`, `since_id`, `min_id` and `limit` in, a `Link` header out.

`max_id` and `since_id` give the newest entries of their range, `min_id` the oldest ones after it: a client that
closes a gap from below uses `min_id`, one that looks for news `since_id`. Pages are always shown newest first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode
from uuid import UUID

from aiohttp import web

from api.errors import bad_request
from fanline.ids import MAX_ID

C = TypeVar("C")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[C]):
    """Which part of a list is asked for; cursors are exclusive."""

    limit: int
    max_id: C | None = None
    since_id: C | None = None
    min_id: C | None = None

    @property
    def ascending(self) -> bool:
        """Whether the entries nearest to `min_id` are wanted, so that SQL must sort upwards."""
        return self.min_id is not None

    def sql(self, column: str) -> str:
        """The end of a query: conditions (after a WHERE clause's other ones), ORDER BY and LIMIT.

        Its parameters are `parameters()`. `column` is the cursor's column and never comes from a request.
        """
        conditions = ""
        if self.max_id is not None:
            conditions += f" AND {column} < %(max_id)s"
        if self.since_id is not None:
            conditions += f" AND {column} > %(since_id)s"
        if self.min_id is not None:
            conditions += f" AND {column} > %(min_id)s"
        return f"{conditions} ORDER BY {column} {'ASC' if self.ascending else 'DESC'} LIMIT %(limit)s"

    def parameters(self) -> dict[str, Any]:
        """The query parameters that `sql` names."""
        return {"max_id": self.max_id, "since_id": self.since_id, "min_id": self.min_id, "limit": self.limit}

    def newest_first(self, rows: Sequence[Item]) -> list[Item]:
        """Rows in the order of `sql`, put into the order that is shown."""
        return list(reversed(rows)) if self.ascending else list(rows)


def read_page(request: web.Request, default: int = 20, maximum: int = 40) -> Page[int]:
    """The page of a list of posts (64-bit identifiers); raises `ApiError` 400."""
    return read_page_of(request, post_id, default, maximum)


def read_account_page(request: web.Request, default: int = 40, maximum: int = 80) -> Page[UUID]:
    """The page of a list of accounts (UUIDs); raises `ApiError` 400."""
    return read_page_of(request, UUID, default, maximum)


def post_id(text: str) -> int:
    """A post's identifier from its decimal string; raises `ValueError`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or (value := int(text)) > MAX_ID:
        raise ValueError(text)
    return value


def link_header(request: web.Request, public_url: str, newest: object, oldest: object) -> dict[str, str]:
    """The `Link` header of a page that is not empty: `next` (older) first, then `prev` (newer), absolute."""
    kept = [(name, value) for name, value in request.query.items() if name not in ("max_id", "since_id", "min_id")]
    base = f"{public_url}{request.rel_url.raw_path}"
    older = urlencode([*kept, ("max_id", str(oldest))])
    newer = urlencode([*kept, ("min_id", str(newest))])
    return {"Link": f'<{base}?{older}>; rel="next", <{base}?{newer}>; rel="prev"'}


def read_page_of(request: web.Request, parse: Callable[[str], C], default: int, maximum: int) -> Page[C]:
    """The page of a list whose cursors `parse` reads, raising `ValueError`; raises `ApiError` 400."""
    query = request.query
    if not query:
        return Page(default)
    cursors: dict[str, C | None] = {}
    for name in ("max_id", "since_id", "min_id"):
        text = query.get(name)
        try:
            cursors[name] = parse(text) if text else None
        except ValueError as error:
            raise bad_request(f"{name} is not an id of this list") from error
    text = query.get("limit")
    if not text:
        return Page(default, **cursors)
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or int(text) < 1:
        raise bad_request("limit must be a number from 1")
    return Page(min(int(text), maximum), **cursors)
