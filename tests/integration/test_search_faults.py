"""Search when OpenSearch is away, when an index is built anew under load, and when the log is read again."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from connectors.barrier import Barrier
from connectors.reset import reset_offsets
from readmodels.search import KINDS, POSTS
from sinks.opensearch_client import OpenSearchClient
from tests.conftest import Stack
from tests.integration.api_world import Api, Person, running_api
from tests.integration.test_search import SEARCH, found_ids, until_found, word


def settle(system: Stack) -> None:
    with Barrier(system.settings, ("search",)) as barrier:
        barrier.wait(90)


def contents(system: Stack) -> dict[str, dict[str, Any]]:
    """The newest documents by kind and id, without popularity, which only ranks."""
    client = OpenSearchClient(system.settings)
    found: dict[str, dict[str, Any]] = {}
    try:
        for kind in KINDS:
            alias = kind.read_alias(system.settings.search_prefix)
            assert client.count(alias)
            answer = client.call("POST", f"/{alias}/_search", {"size": 10_000, "sort": [{"id": "desc"}]})
            found[kind.name] = {
                hit["_id"]: {name: value for name, value in hit["_source"].items() if name != kind.popularity_field}
                for hit in answer["hits"]["hits"]
            }
    finally:
        client.close()
    return found


def indexed(system: Stack, posts: list[str]) -> dict[str, Any]:
    """Those of the posts that the index has."""
    client = OpenSearchClient(system.settings)
    try:
        return client.documents(POSTS.read_alias(system.settings.search_prefix), posts)
    finally:
        client.close()


async def wait_for(reached: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.1)


async def test_nothing_is_lost_while_opensearch_is_away_and_the_flow_says_what_it_waits_for(system: Stack) -> None:
    log = Path(system.settings.state_dir, "log", "search.log")
    size = log.stat().st_size  # noqa: ASYNC240 - one look at a local file
    async with running_api(system.settings, search_timeout_seconds=15) as api:
        ada, bob = await api.people("ada", "bob")
        rare = word()
        before = await api.status(ada, f"{rare} before")
        await until_found(api, bob, rare, [before["id"]])
        await asyncio.to_thread(system.kill, "opensearch")
        try:
            posts = [before] + [await api.status(ada, f"{rare} {number}") for number in range(5)]

            def waits() -> bool:
                with log.open("rb") as file:
                    file.seek(size)
                    lines = file.read().splitlines()
                said = [json.loads(line) for line in lines if b"sink waits" in line]
                return any("OpenSearch" in line["reason"] for line in said)

            await wait_for(waits, "the flow says that it waits for OpenSearch")
            answer = await api.get(SEARCH, bob, params={"q": rare, "type": "statuses"})
            assert len(answer.ok()["statuses"]) == 6
            assert answer.headers["Fanline-Search"] == "database"
        finally:
            await asyncio.to_thread(system.up, "opensearch")
        await asyncio.to_thread(settle, system)

        async def answers() -> bool:
            return (await api.get(SEARCH, bob, params={"q": rare})).headers["Fanline-Search"] == "opensearch"

        for _ in range(100):
            if await answers():
                break
            await asyncio.sleep(0.1)
        await until_found(api, bob, rare, [post["id"] for post in posts])


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
            return searches

        searching = asyncio.create_task(keep_searching())
        rebuilding = asyncio.create_task(asyncio.to_thread(system.fanline, "search", "reindex"))
        gone = []
        while not rebuilding.done():
            posts.append((await api.status(ada, f"{rare} meanwhile"))["id"])
            extra = await api.status(ada, f"{rare} gone")
            (await api.request("DELETE", f"/api/v1/statuses/{extra['id']}", ada)).ok()
            gone.append(extra["id"])
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


async def test_reading_the_log_again_changes_no_document(system: Stack) -> None:
    async with running_api(system.settings) as api:
        await some_history(api, *await api.people("ada", "bob"))
    await asyncio.to_thread(settle, system)
    before = await asyncio.to_thread(contents, system)
    for _ in range(2):
        await asyncio.to_thread(system.fanline, "down", "--only", "search")
        reset_offsets("search", "earliest", system.settings)
        await asyncio.to_thread(system.up, "search")
        await asyncio.to_thread(settle, system)
        after = await asyncio.to_thread(contents, system)
        assert {name: {key: after[name].get(key) for key in found} for name, found in before.items()} == before


async def some_history(api: Api, ada: Person, bob: Person) -> None:
    kept, edited, deleted = [await api.status(ada, f"{word()} #x") for _ in range(3)]
    (await api.request("PUT", f"/api/v1/statuses/{edited['id']}", ada, json={"status": "edited #y"})).ok()
    (await api.request("DELETE", f"/api/v1/statuses/{deleted['id']}", ada)).ok()
    (await api.post(f"/api/v1/statuses/{kept['id']}/reblog", bob)).ok()
    await api.follow(bob, ada)
    (await api.request("PATCH", "/api/v1/accounts/update_credentials", bob, json={"note": "hello"})).ok()
