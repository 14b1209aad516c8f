"""Holds the search indexes against the database: the document of each person and post says what it should."""

from collections.abc import Sequence
from typing import Any

from audit.checks import Check
from audit.compare import Difference
from audit.repairs import Repair
from audit.stores import Stores
from readmodels import search
from readmodels.search import Searchable
from sinks.opensearch import write
from sinks.opensearch_client import OpenSearchClient


def check_search(kind: Searchable) -> Check:
    """The check that documents of this kind are there, absent, and alike, their popularity apart; subjects are ids.

    The newest write counts, refreshed or not. Where there is no index every document is missing.
    """

    def check(stores: Stores, subjects: Sequence[Any]) -> dict[Any, Difference | None]:
        expected = stores.drive(search.load(kind, subjects))
        client = OpenSearchClient(stores.settings)
        try:
            alias = kind.read_alias(stores.settings.search_prefix)
            there = client.behind([alias])[alias]
            actual = client.documents(alias, [str(subject) for subject in subjects]) if there else {}
        finally:
            client.close()
        return {subject: _compare(kind, expected.get(subject), actual.get(str(subject))) for subject in subjects}

    return check


def repair_search(kind: Searchable) -> Repair:
    """The repair of documents of this kind: written again, in a new version.

    Nothing while there is no index to write to: the flow builds it, from the database, when it starts.
    """

    def repair(stores: Stores, subjects: Sequence[Any]) -> None:
        alias = kind.write_alias(stores.settings.search_prefix)
        client = OpenSearchClient(stores.settings)
        try:
            if client.behind([alias])[alias]:
                write(client, stores.drive(search.writes(kind, list(subjects), alias)))
        finally:
            client.close()

    return repair


def search_posts(stores: Stores, chosen: Sequence[int]) -> Sequence[int]:
    """The chosen posts, and as many that are in the index but may not be in the database any more."""
    client = OpenSearchClient(stores.settings)
    try:
        alias = search.POSTS.read_alias(stores.settings.search_prefix)
        if not client.behind([alias])[alias]:
            return chosen
        body = {"size": min(len(chosen), 1_000), "_source": False, "sort": [{"id": "desc"}]}
        answer = client.call("POST", f"/{alias}/_search", body)
    finally:
        client.close()
    return list(dict.fromkeys([*chosen, *(int(hit["_id"]) for hit in answer["hits"]["hits"])]))


def _compare(kind: Searchable, expected: dict[str, Any] | None, actual: dict[str, Any] | None) -> Difference:
    if expected is None or actual is None:
        return Difference(missing=int(expected is not None), extra=int(actual is not None))
    return Difference() if search.same(expected, actual, kind) else Difference(missing=1, extra=1)
