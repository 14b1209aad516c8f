"""Which of the viewer's filters match the statuses of a page: their `filtered` members."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from uuid import UUID

import msgspec

from api.database import Database
from api.documents import Found, Status
from readmodels.entries import Entry
from readmodels.filters import FILTERS_OF, Filters, filter_results, parse_filters, searchable_text

_NOTHING: Mapping[int, bytes] = {}


class _Text(msgspec.Struct):
    """What a card's members say of its text."""

    content: str
    spoiler_text: str


async def filters_of(database: Database, viewer: UUID) -> Filters:
    """A viewer's filters from SQL; raises `DependencyUnavailable`."""
    row = await database.row(FILTERS_OF, {"viewer": viewer})
    return parse_filters(row["filters"]) if row is not None else ()


def filtered(filters: Filters, page: Sequence[Entry], found: Found, now_ms: int) -> Mapping[int, bytes]:
    """The JSON of `filtered` of those of a page's posts, originals included, that a filter matches.

    `found` has the page's cards and polls. A repost matches by its original's text.
    """
    if not filters:
        return _NOTHING
    matched: dict[int, bytes] = {}
    for entry in page:
        original: Status | None = found[entry.original]
        if original is None:
            continue
        text = _text(original, found)
        if results := filter_results(filters, text, (entry.original,), now_ms):
            matched[entry.original] = msgspec.json.encode(results)
        if entry.id != entry.original and (
            results := filter_results(filters, text, (entry.id, entry.original), now_ms)
        ):
            matched[entry.id] = msgspec.json.encode(results)
    return matched


def _text(status: Status, found: Found) -> str:
    text = _card_text(status.members)
    poll = found.get(status.poll_key) if status.poll_key is not None else None
    return "\n".join((text, *(option["title"] for option in poll["options"]))) if poll else text


# Popular posts are shown to many; the cache of documents keeps their members, so that these are no copies.
@lru_cache(maxsize=20_000)
def _card_text(members: bytes) -> str:
    text = msgspec.json.decode(b"{%b}" % members, type=_Text)
    return searchable_text(text.content, text.spoiler_text)
