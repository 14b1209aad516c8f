"""OpenSearch as the sink and those who build indexes use it: bulk requests, indexes, aliases. One thread at a time.

What a server that is away, starting or overloaded says is `DependencyUnavailable`; what no repetition mends is
`OpenSearchRefused`.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from opensearchpy import OpenSearch
from opensearchpy.exceptions import ConnectionError as NoConnection
from opensearchpy.exceptions import TransportError

from fanline.addresses import opensearch_url
from fanline.errors import DependencyUnavailable, FanlineError
from fanline.settings import Settings

# A bulk request on a busy node takes seconds; longer than this it is lost.
TIMEOUT_SECONDS = 60.0
# Overload, a proxy without a server behind it, a cluster that has not recovered.
_UNAVAILABLE = frozenset({408, 429, 500, 502, 503, 504})
# It logs every request, and each failed one with a traceback; who waits says so itself.
logging.getLogger("opensearch").setLevel(logging.CRITICAL)


class OpenSearchRefused(FanlineError):
    """OpenSearch refuses a request for a reason that no repetition mends."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class OpenSearchClient:
    """The few requests that indexes are kept with."""

    def __init__(self, settings: Settings, timeout: float = TIMEOUT_SECONDS) -> None:
        self.url = opensearch_url(settings)
        self._client = OpenSearch(self.url, timeout=timeout, max_retries=0, retry_on_timeout=False, pool_maxsize=4)

    def call(self, method: str, path: str, body: Any = None, **parameters: Any) -> Any:
        """Any request; raises `DependencyUnavailable` or `OpenSearchRefused`."""
        headers = {"content-type": "application/x-ndjson"} if isinstance(body, bytes) else None
        try:
            return self._client.transport.perform_request(
                method, path, params=parameters or None, body=body, headers=headers
            )
        except NoConnection as error:
            raise DependencyUnavailable(f"OpenSearch does not answer at {self.url}.", "opensearch") from error
        except TransportError as error:
            if error.status_code in _UNAVAILABLE:
                reason = f"OpenSearch answers {error.status_code}: {error.error}."
                raise DependencyUnavailable(reason, "opensearch") from error
            raise OpenSearchRefused(
                f"OpenSearch refuses {method} {path}: {error.status_code} {_reason(error)}.", int(error.status_code)
            ) from error

    def bulk(self, payload: bytes) -> list[dict[str, Any]]:
        """Send actions; the answer to each, in order."""
        answer = self.call("POST", "/_bulk", payload)
        return [next(iter(item.values())) for item in answer["items"]]

    def behind(self, aliases: Sequence[str]) -> dict[str, list[str]]:
        """The indexes behind each alias, by name; none for an alias that does not exist."""
        wanted = dict.fromkeys(aliases)
        try:
            answer = self.call("GET", f"/_alias/{','.join(wanted)}")
        except OpenSearchRefused as error:
            if error.status != 404 or len(wanted) > 1:
                if error.status == 404:
                    return {alias: self.behind([alias])[alias] for alias in wanted}
                raise
            answer = {}
        return {
            alias: sorted(index for index, found in answer.items() if alias in found["aliases"]) for alias in wanted
        }

    def create(self, index: str, body: Mapping[str, Any]) -> None:
        """Make an index; nothing happens when it is there already."""
        try:
            self.call("PUT", f"/{index}", dict(body))
        except OpenSearchRefused as error:
            if "resource_already_exists_exception" not in str(error):
                raise

    def change_aliases(self, actions: Sequence[Mapping[str, Any]]) -> None:
        """Apply alias actions, all at once."""
        self.call("POST", "/_aliases", {"actions": list(actions)})

    def delete(self, index: str) -> None:
        """Delete an index, if it is there."""
        try:
            self.call("DELETE", f"/{index}")
        except OpenSearchRefused as error:
            if error.status != 404:
                raise

    def notes(self, index: str) -> dict[str, Any]:
        """What `note` has left in the index."""
        answer = self.call("GET", f"/{index}/_mapping")
        found: dict[str, Any] = answer[index]["mappings"].get("_meta", {})
        return found

    def note(self, index: str, notes: Mapping[str, Any]) -> None:
        """Leave something in the index, for whoever goes on with it."""
        self.call("PUT", f"/{index}/_mapping", {"_meta": dict(notes)})

    def refresh(self, indexes: Sequence[str]) -> None:
        """Let searches see everything that was written."""
        self.call("POST", f"/{','.join(indexes)}/_refresh")

    def count(self, index: str) -> int:
        """Documents in an index or alias, those of the last moments included."""
        self.refresh([index])
        return int(self.call("GET", f"/{index}/_count")["count"])

    def documents(self, index: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The documents with these ids that exist, as they were written last, refreshed or not."""
        if not ids:
            return {}
        answer = self.call("POST", f"/{index}/_mget", {"ids": list(ids)})
        return {found["_id"]: found["_source"] for found in answer["docs"] if found.get("found")}

    def forbid_making_indexes(self, pattern: str) -> None:
        """Writing to a missing index with such a name fails, instead of making one that knows no field."""
        self.call("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": f"-{pattern},+*"}})

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _reason(error: TransportError) -> str:
    fault = error.info.get("error") if isinstance(error.info, dict) else None
    return f"{fault['type']}: {fault['reason']}" if isinstance(fault, dict) else str(error.error)
