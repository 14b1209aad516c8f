"""Reads whole home timelines over REST, page after page, as a client would."""

import asyncio
from collections.abc import Mapping, Sequence
from uuid import UUID

import aiohttp
import msgspec

from audit.compare import Difference, compare_sequences
from audit.stores import Stores
from fanline.errors import DependencyUnavailable
from readmodels.timelines import home_query

PAGE = 40
"""The most that the API gives at once."""

# Enough to keep the API busy while the database works on the oracle, without queueing requests behind each other.
CONCURRENCY = 8
# Viewers whose oracle is asked for while their timelines are read.
BATCH = 50
_TIMEOUT = aiohttp.ClientTimeout(total=30)

Item = tuple[int, int | None]
"""A post's id, and the id of the post that it repeats."""


class _Reblog(msgspec.Struct):
    id: int


class _Status(msgspec.Struct):
    id: int
    reblog: _Reblog | None = None


# Ids are decimal strings on the wire, which lax decoding takes for numbers.
_DECODER = msgspec.json.Decoder(list[_Status], strict=False)


class HomeReader:
    """Reads timelines with some people's tokens. Use it as an asynchronous context manager."""

    def __init__(self, base_url: str, tokens: Mapping[UUID, str], depth: int) -> None:
        self._base_url = base_url.rstrip("/")
        self._tokens = tokens
        self._depth = depth
        self._session: aiohttp.ClientSession | None = None
        self._turns = asyncio.Semaphore(CONCURRENCY)

    async def __aenter__(self) -> "HomeReader":
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def home(self, viewer: UUID, depth: int | None = None) -> list[Item]:
        """The newest `depth` entries of a timeline, newest first; raises `DependencyUnavailable` with the answer."""
        wanted = self._depth if depth is None else depth
        items: list[Item] = []
        async with self._turns:
            while len(items) < wanted:
                limit = min(PAGE, wanted - len(items))
                page = await self._page(viewer, limit, items[-1][0] if items else None)
                items += page
                if not page:
                    break
        return items

    async def check(self, stores: Stores, viewers: Sequence[UUID]) -> dict[UUID, Difference]:
        """The difference of each viewer's timeline from the oracle."""
        found: dict[UUID, Difference] = {}
        for start in range(0, len(viewers), BATCH):
            batch = viewers[start : start + BATCH]
            oracle = asyncio.to_thread(self._oracle, stores, batch)
            expected, actual = await asyncio.gather(oracle, self._homes(batch))
            for viewer, want, have in zip(batch, expected, actual, strict=True):
                found[viewer] = compare_sequences(want, have)
        return found

    async def _homes(self, viewers: Sequence[UUID]) -> list[list[Item]]:
        return await asyncio.gather(*(self.home(viewer) for viewer in viewers))

    def _oracle(self, stores: Stores, viewers: Sequence[UUID]) -> list[list[Item]]:
        return [
            [(row["id"], row["repost_of_id"]) for row in stores.rows(home_query(viewer, self._depth))]
            for viewer in viewers
        ]

    async def _page(self, viewer: UUID, limit: int, max_id: int | None) -> list[Item]:
        assert self._session is not None
        parameters = {"limit": str(limit)} | ({"max_id": str(max_id)} if max_id is not None else {})
        headers = {"Authorization": f"Bearer {self._tokens[viewer]}"}
        url = f"{self._base_url}/api/v1/timelines/home"
        try:
            async with self._session.get(url, params=parameters, headers=headers) as response:
                content = await response.read()
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            raise DependencyUnavailable(f"The API does not answer at {self._base_url}.") from error
        if response.status != 200:
            raise DependencyUnavailable(f"The API answered {response.status} to {url}: {content[:200].decode()}")
        try:
            statuses = _DECODER.decode(content)
        except msgspec.DecodeError:
            # No client could read this page either: all that should be on it is missing.
            return []
        return [(status.id, status.reblog.id if status.reblog else None) for status in statuses]
