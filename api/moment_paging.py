"""Pages of lists that are kept by the time at which something was done, such as favourites and follow requests.

Mastodon pages them by internal ids, which clients get from the `Link` header only. Here such a cursor is the row's time
in microseconds and the id of what the row is about, `1795353890435123-112233445566778899`: rows of one microsecond keep
an order, and an index on both serves the page.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from aiohttp import web

from api.database import Row
from api.paging import Page, link_header, read_page_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# The last moment that a timestamp of Python's can hold.
_MAX_MICROSECONDS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


@dataclass(frozen=True, slots=True)
class Moment:
    """A place in such a list."""

    at: datetime
    id: int | UUID

    def __str__(self) -> str:
        return f"{(self.at - _EPOCH) // _MICROSECOND}-{self.id}"


def moment_of(row: Row) -> Moment:
    """The place of a row that has the columns `at` and `id`."""
    return Moment(row["at"], row["id"])


def parse_moment(text: str, parse_id: Callable[[str], int | UUID]) -> Moment:
    """A place from its cursor; raises `ValueError`."""
    microseconds, _, identifier = text.partition("-")
    if not (microseconds.isascii() and microseconds.isdigit() and len(microseconds) <= 18):
        raise ValueError(text)
    if (number := int(microseconds)) > _MAX_MICROSECONDS:
        raise ValueError(text)
    return Moment(_EPOCH + number * _MICROSECOND, parse_id(identifier))


@dataclass(frozen=True, slots=True)
class MomentPage:
    """Which part of such a list is asked for; the names are those of `Page`."""

    page: Page[Moment]

    def sql(self, at: str, identifier: str) -> str:
        """The end of a query: conditions (after a WHERE clause's other ones), ORDER BY and LIMIT.

        `at` and `identifier` are columns, in this order in an index, and never come from a request.
        """
        conditions = ""
        for name, sign in (("max", "<"), ("since", ">"), ("min", ">")):
            if getattr(self.page, f"{name}_id") is not None:
                # The first condition bounds the index; a comparison of rows would not where directions are mixed.
                conditions += (
                    f" AND {at} {sign}= %({name}_at)s"
                    f" AND ({at} {sign} %({name}_at)s OR {identifier} {sign} %({name}_id)s)"
                )
        direction = "ASC" if self.page.ascending else "DESC"
        return f"{conditions} ORDER BY {at} {direction}, {identifier} {direction} LIMIT %(limit)s"

    def parameters(self) -> dict[str, Any]:
        """The query parameters that `sql` names."""
        given: dict[str, Any] = {"limit": self.page.limit}
        for name in ("max", "since", "min"):
            moment: Moment | None = getattr(self.page, f"{name}_id")
            given |= {f"{name}_at": moment and moment.at, f"{name}_id": moment and moment.id}
        return given

    def newest_first(self, rows: Sequence[Row]) -> list[Row]:
        """Rows in the order of `sql`, put into the order that is shown."""
        return self.page.newest_first(rows)


def read_moment_page(
    request: web.Request, parse_id: Callable[[str], int | UUID], default: int = 20, maximum: int = 40
) -> MomentPage:
    """The page of such a list; `parse_id` reads the id in a cursor. Raises `ApiError` 400."""
    return MomentPage(read_page_of(request, lambda text: parse_moment(text, parse_id), default, maximum))


def moment_links(request: web.Request, public_url: str, rows: Sequence[Row]) -> dict[str, str]:
    """The `Link` header of the rows shown; none for an empty page."""
    return link_header(request, public_url, moment_of(rows[0]), moment_of(rows[-1])) if rows else {}
