"""Search when an index is built anew under load."""

import asyncio
import json
from typing import Any

from connectors.barrier import Barrier
from readmodels.search import POSTS
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
