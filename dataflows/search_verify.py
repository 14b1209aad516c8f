"""Holds a new search index against the database before it may take the place of the one that serves."""

import time
from collections.abc import Sequence
from typing import Any

from connectors.waiting import Waiting
from dataflows.effects import Performer
from fanline.errors import FanlineError
from readmodels.effects import Effects, Query
from readmodels.search import PAGE, Searchable, load, same
from sinks.opensearch_client import OpenSearchClient

# What people change meanwhile the flow brings to the index within a second, unless it is far behind.
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.5


class SearchDiffers(FanlineError):
    """A new index does not say what the database says; nothing was switched."""


def require_equal(
    performer: Performer, client: OpenSearchClient, kind: Searchable, index: str, waiting: Waiting
) -> None:
    """Compare every document of the index, page by page, popularity apart; raises `SearchDiffers`.

    What differs is looked at again until the flow has had time for it.
    """
    after: Any = kind.first
    while ids := performer.run(ids_after(kind, after)):
        differing, until = list(ids), time.monotonic() + PATIENCE_SECONDS
        while differing := _differing(performer, client, kind, index, differing, waiting):
            if time.monotonic() > until:
                raise SearchDiffers(
                    f"The new index of {kind.name} is not what the database says of {differing[0]}"
                    f" and {len(differing) - 1} more: the indexes that serve are kept."
                )
            time.sleep(LOOK_SECONDS)
        after = ids[-1]


def ids_after(kind: Searchable, after: Any) -> Effects[list[Any]]:
    """A page of the ids of all that may have to be found."""
    rows = yield Query(kind.after, {"after": after, "limit": PAGE})
    return [row["id"] for row in rows]


def _differing(
    performer: Performer,
    client: OpenSearchClient,
    kind: Searchable,
    index: str,
    ids: Sequence[Any],
    waiting: Waiting,
) -> list[Any]:
    expected = performer.run(load(kind, ids))
    actual = waiting.patiently(lambda: client.documents(index, [str(each) for each in ids]))
    return [each for each in ids if not _is_same(kind, expected.get(each), actual.get(str(each)))]


def _is_same(kind: Searchable, expected: dict[str, Any] | None, actual: dict[str, Any] | None) -> bool:
    if expected is None or actual is None:
        return expected is actual
    return same(expected, actual, kind)
