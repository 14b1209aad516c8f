"""Cursors of lists by time: every place has one, places keep their order, and nothing else is taken for one."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from api.errors import ApiError
from api.moment_paging import Moment, moment_links, parse_moment, read_moment_page
from api.paging import post_id

WHEN = datetime(2026, 11, 22, 14, 5, 9, 123_456, UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(0, 7 * 10**15).map(lambda micros: EPOCH + timedelta(microseconds=micros))
NO_CURSORS = ["", "-", "5", "-5", "x-5", "5-x", "\u0661-5", "9" * 19 + "-5", "9" * 18 + "-5", "5--5"]


@given(MOMENTS, st.integers(0, (1 << 63) - 1))
def test_a_place_survives_its_cursor(at: datetime, identifier: int) -> None:
    moment = Moment(at, identifier)
    assert parse_moment(str(moment), post_id) == moment


@given(MOMENTS, st.uuids())
def test_a_place_of_a_person_survives_its_cursor(at: datetime, identifier: UUID) -> None:
    moment = Moment(at, identifier)
    assert parse_moment(str(moment), UUID) == moment


@pytest.mark.parametrize("text", NO_CURSORS)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ApiError, match="max_id"):
        read_moment_page(make_mocked_request("GET", f"/api/v1/favourites?max_id={text or '%20'}"), post_id)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), unique=True, max_size=20),
    st.sampled_from(["max", "since", "min"]),
    st.integers(0, 3),
    st.integers(0, 9),
)
def test_the_conditions_cut_a_list_as_its_order_does(
    rows: list[tuple[int, int]], name: str, micros: int, identifier: int
) -> None:
    cursor = Moment(WHEN + timedelta(microseconds=micros), identifier)
    page = read_moment_page(make_mocked_request("GET", f"/x?{name}_id={cursor}&limit=40"), post_id)
    parameters = page.parameters()
    at, place = parameters[f"{name}_at"], parameters[f"{name}_id"]
    kept = [
        (WHEN + timedelta(microseconds=row[0]), row[1])
        for row in rows
        if _passes(page.sql("at", "id"), WHEN + timedelta(microseconds=row[0]), row[1], at, place, name)
    ]
    expected = [
        moment
        for row in rows
        if (moment := (WHEN + timedelta(microseconds=row[0]), row[1])) != (at, place)
        and (moment < (at, place)) is (name == "max")
    ]
    assert kept == expected


def _passes(sql: str, at: datetime, identifier: int, cursor_at: datetime, cursor_id: int, name: str) -> bool:
    """Evaluates the condition of the page on a row."""
    condition = sql.split(" ORDER BY ")[0].removeprefix(" AND ")
    condition = condition.replace(f"%({name}_at)s", "cursor_at").replace(f"%({name}_id)s", "cursor_id")
    names = {"at": at, "id": identifier, "cursor_at": cursor_at, "cursor_id": cursor_id}
    return bool(eval(condition.replace(" AND ", " and ").replace(" OR ", " or "), {}, names))


def test_links_lead_on_from_both_ends_of_a_page() -> None:
    rows = [{"at": WHEN, "id": 7}, {"at": WHEN - timedelta(microseconds=1), "id": 9}]
    header = moment_links(make_mocked_request("GET", "/api/v1/favourites?limit=2"), "https://fanline.example", rows)
    older, newer = header["Link"].split(", ")
    assert older == '<https://fanline.example/api/v1/favourites?limit=2&max_id=1795356309123455-9>; rel="next"'
    assert newer == '<https://fanline.example/api/v1/favourites?limit=2&min_id=1795356309123456-7>; rel="prev"'
    assert moment_links(make_mocked_request("GET", "/x"), "https://fanline.example", []) == {}
