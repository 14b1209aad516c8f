"""Paging: three cursors that differ, and a `Link` header that leads through a whole list once, in either direction."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st

from api.errors import ApiError
from api.paging import Page, link_header, read_account_page, read_page

PUBLIC = "https://fanline.example"


def request(query: str = "") -> web.Request:
    return make_mocked_request("GET", f"/api/v1/timelines/public{'?' + query if query else ''}")


def select(page: Page[int], rows: Sequence[int]) -> list[int]:
    """What a database answers to `page.sql`, in the order that is shown."""
    found = [
        row
        for row in rows
        if (page.max_id is None or row < page.max_id)
        and (page.since_id is None or row > page.since_id)
        and (page.min_id is None or row > page.min_id)
    ]
    return page.newest_first(sorted(found, reverse="DESC" in page.sql("id"))[: page.limit])


def links(header: dict[str, str]) -> list[tuple[str, str]]:
    """Relation and query of each link, in order."""
    found = []
    for part in header["Link"].split(", "):
        address, relation = part.split("; rel=")
        found.append((relation.strip('"'), urlsplit(address.strip("<>")).query))
    return found


def test_since_id_gives_the_newest_and_min_id_the_nearest() -> None:
    rows = range(1, 11)
    assert select(read_page(request("since_id=3&limit=2")), rows) == [10, 9]
    assert select(read_page(request("min_id=3&limit=2")), rows) == [5, 4]
    assert select(read_page(request("max_id=9&limit=2")), rows) == [8, 7]


@pytest.mark.parametrize(
    ("query", "limit"), [("", 20), ("limit=5", 5), ("limit=1000", 40), ("limit=", 20), ("limit=999999999", 40)]
)
def test_the_limit_has_a_default_and_a_maximum(query: str, limit: int) -> None:
    assert read_page(request(query)).limit == limit


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=%D9%A3",
        "limit=9999999999",
        "max_id=x",
        "max_id=-1",
        "min_id=1.5",
        "since_id=9223372036854775808",
        "max_id=%D9%A3",
    ],
)
def test_a_cursor_or_limit_of_another_form_is_refused(query: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_page(request(query))
    assert caught.value.status == 400


def test_accounts_are_paged_by_their_ids() -> None:
    identifier = uuid4()
    assert read_account_page(request(f"max_id={identifier}")).max_id == identifier
    with pytest.raises(ApiError):
        read_account_page(request("max_id=123"))


def test_links_are_absolute_next_first_and_keep_the_filters() -> None:
    header = link_header(request("limit=2&exclude_replies=true&max_id=9"), PUBLIC, 8, 7)
    assert header["Link"] == (
        f'<{PUBLIC}/api/v1/timelines/public?limit=2&exclude_replies=true&max_id=7>; rel="next", '
        f'<{PUBLIC}/api/v1/timelines/public?limit=2&exclude_replies=true&min_id=8>; rel="prev"'
    )


def walk(rows: Sequence[int], query: str, relation: int) -> list[list[int]]:
    pages: list[list[int]] = []
    while True:
        asked = request(query)
        page = select(read_page(asked), rows)
        if not page:
            return pages
        pages.append(page)
        query = links(link_header(asked, PUBLIC, page[0], page[-1]))[relation][1]
        assert dict(parse_qsl(query))["limit"] == "3"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 500), unique=True, max_size=30))
def test_next_walks_down_and_prev_walks_up_through_every_row_once(rows: list[int]) -> None:
    down = [row for page in walk(rows, "limit=3", 0) for row in page]
    assert down == sorted(rows, reverse=True)
    up: list[Any] = [row for page in walk(rows, "limit=3&min_id=0", 1) for row in reversed(page)]
    assert up == sorted(rows)
