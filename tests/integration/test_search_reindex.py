"""Search when an index is built anew under load."""

import asyncio
import json
from typing import Any
from unittest import mock

import pytest

from connectors.barrier import Barrier
from dataflows.effects import Performer
from dataflows.search_rebuild import rebuild
from dataflows.search_verify import SearchDiffers
from readmodels.search import POSTS, Searchable
from sinks.opensearch_client import OpenSearchClient
from tests.conftest import Stack
from tests.integration.api_world import running_api
from tests.integration.test_search import found_ids, until_found, word


def settle(system: Stack) -> None:
    with Barrier(system.settings, ("search",)) as barrier:
        barrier.wait(90)


def indexed(system: Stack, posts: list[str]) -> dict[str, Any]:
    """Those of the posts that the index has."""
    client = OpenSearchClient(system.settings)
    try:
        return client.documents(POSTS.read_alias(system.settings.search_prefix), posts)
    finally:
        client.close()


async def test_an_index_is_built_anew_under_load_and_no_search_fails(system: Stack) -> None:
    async with running_api(system.settings, search_timeout_seconds=15) as api:
        ada, bob = await api.people("ada", "bob")
        rare = word()
        first = [(await api.status(ada, f"{rare} {number}"))["id"] for number in range(10)]
        await until_found(api, bob, rare, first, limit=40)
        posts = list(first)
        done = asyncio.Event()

        async def keep_searching() -> int:
            searches = 0
            while not done.is_set():
                # The helper fails when anybody but OpenSearch answers.
                assert await found_ids(api, bob, rare, limit=40, max_id=int(first[-1]) + 1) == first[::-1]
                searches += 1
                await asyncio.wait([rebuilding], timeout=0.2)
            return searches

        rebuilding = asyncio.create_task(asyncio.to_thread(system.fanline, "search", "reindex"))
        searching = asyncio.create_task(keep_searching())
        gone = []
        while not rebuilding.done():
            posts.append((await api.status(ada, f"{rare} meanwhile"))["id"])
            extra = await api.status(ada, f"{rare} gone")
            (await api.request("DELETE", f"/api/v1/statuses/{extra['id']}", ada)).ok()
            gone.append(extra["id"])
            await asyncio.wait([rebuilding], timeout=0.2)
        rebuilt = await rebuilding
        done.set()
        assert await searching > 0
        assert "which is searched now" in rebuilt.stdout
        await asyncio.to_thread(settle, system)
        newest = posts[-10:]
        await until_found(api, None, f"{rare} from:{ada.username}", newest, min_id=int(newest[0]) - 1, limit=40)
        assert not await asyncio.to_thread(indexed, system, gone)
        shown = json.loads((await asyncio.to_thread(system.fanline, "search", "status", "--json")).stdout)
        assert [row["state"] for row in shown] == ["serving", "serving"]


def test_an_index_that_refuses_documents_does_not_serve_and_a_kept_one_serves_again(system: Stack) -> None:
    settings, alias = system.settings, POSTS.read_alias(system.settings.search_prefix)
    client, performer = OpenSearchClient(settings), Performer(settings, "search")
    index_body = Searchable.index_body

    def of_other_fields(kind: Searchable) -> dict[str, Any]:
        body = index_body(kind)
        if kind is POSTS:
            body["mappings"]["properties"]["text"] = {"type": "date"}
        return body

    try:
        serving = client.behind([alias])[alias]
        assert client.count(alias) > 0
        with (
            mock.patch.object(Searchable, "index_body", of_other_fields),
            pytest.raises(SearchDiffers, match="documents of posts"),
        ):
            rebuild(settings, performer, client, drop_old=True)
        written = POSTS.write_alias(settings.search_prefix)
        assert client.behind([alias])[alias] == client.behind([written])[written] == serving
        system.fanline("search", "reindex", "--keep-old")
        assert client.behind([alias])[alias] != serving
        assert "is searched again" in system.fanline("search", "reindex", "--rollback").stdout
        assert client.behind([alias])[alias] == serving
        refused = system.fanline("search", "reindex", "--rollback", "--keep-old", check=False)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    finally:
        performer.close()
        client.close()
    system.fanline("search", "reindex")
