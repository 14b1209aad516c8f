"""OpenSearch as request handlers use it: searches, behind a circuit breaker."""

import logging
from typing import Any

from opensearchpy import AsyncOpenSearch
from opensearchpy.exceptions import ConnectionError as NoConnection
from opensearchpy.exceptions import OpenSearchException, TransportError

from api.breaker import Breaker, CircuitOpen
from fanline import metrics
from fanline.addresses import opensearch_url
from fanline.logging import get_logger
from fanline.settings import Settings

# It logs each failed request with a traceback; what failed is logged here, once an outage.
logging.getLogger("opensearch").setLevel(logging.CRITICAL)

_log = get_logger(__name__)


class SearchUnavailable(Exception):
    """OpenSearch does not answer in time, or cannot search now."""


class SearchEngine:
    """Make it inside the event loop that uses it, and `close` it."""

    def __init__(self, settings: Settings) -> None:
        self._url = opensearch_url(settings)
        self._client = AsyncOpenSearch(
            self._url, timeout=settings.search_timeout_seconds, max_retries=0, retry_on_timeout=False
        )
        self._breaker = Breaker(SearchUnavailable)
        self.prefix = settings.search_prefix

    async def search(self, alias: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a search; raises `SearchUnavailable`, at once while OpenSearch is being left alone."""
        try:
            with self._breaker.guard():
                answer = await self._search(alias, body)
        except CircuitOpen as error:
            metrics.SEARCHES.labels("database").inc()
            raise SearchUnavailable("OpenSearch is being left alone.") from error
        except SearchUnavailable as error:
            metrics.SEARCHES.labels("database").inc()
            _log.warning("search answers from the database", reason=str(error))
            raise
        metrics.SEARCHES.labels("opensearch").inc()
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _search(self, alias: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = await self._client.search(index=alias, body=body)
        except NoConnection as error:
            raise SearchUnavailable(f"OpenSearch does not answer at {self._url}.") from error
        except TransportError as error:
            # Without its index it was never built, or lost its data; a search that it refuses is a defect of ours.
            raise SearchUnavailable(f"OpenSearch answers {error.status_code}: {error.error}.") from error
        except OpenSearchException as error:
            raise SearchUnavailable(f"OpenSearch's answer cannot be read: {error}.") from error
        if answer["_shards"]["failed"]:
            raise SearchUnavailable(f"{answer['_shards']['failed']} shards of {alias} do not answer.")
        return answer
