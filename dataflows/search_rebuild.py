"""Builds search indexes from the database beside the ones that serve, and switches to them.

1. A new index is made with the write alias in one request, so that the flow writes to it from then on, too.
2. The database is read page by page, each with a version of its own: what the flow has written later wins, whichever
   comes first. After each page the index itself remembers how far it is; who is interrupted goes on there.
3. The read aliases of all kinds move in one request. A search meets the old indexes or the new ones.
4. The old indexes go when searches that may still be in them have ended.

Whatever was committed before step 1 is seen by step 2; the flow looks behind the alias for each request, so it writes
everything later to both.
"""

import fcntl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from connectors.waiting import Waiting
from dataflows.effects import Performer
from fanline.errors import ConfigurationError, DependencyUnavailable
from fanline.logging import get_logger
from fanline.settings import Settings
from readmodels.effects import Effects, Query
from readmodels.search import KINDS, PAGE, Searchable, writes
from sinks.opensearch import write_to
from sinks.opensearch_client import OpenSearchClient

Report = Callable[["Building"], None]
"""Is told of each page."""

BUILDER = "search indexes"

_log = get_logger(__name__)


@dataclass(slots=True)
class Building:
    """An index that is being filled."""

    kind: Searchable
    index: str
    total: int
    loaded: int = 0
    after: str = ""
    """The last id that was read; empty before the first page."""
    complete: bool = False

    def notes(self) -> dict[str, Any]:
        """What the index remembers."""
        return {"loaded": self.loaded, "after": self.after, "complete": self.complete}


def build_missing(settings: Settings, performer: Performer, client: OpenSearchClient) -> None:
    """Build the indexes where searches find none: at the first start, and after OpenSearch has lost them.

    The first instance of the flow does it; the others wait for it. Waits for OpenSearch, too.
    """
    waiting, builder = Waiting(BUILDER), Waiting(BUILDER)
    aliases = [kind.read_alias(settings.search_prefix) for kind in KINDS]

    def is_missing() -> bool:
        return not all(client.behind(aliases).values())

    while waiting.patiently(is_missing):
        if settings.flow_instance == 0:
            rebuild(settings, performer, client, drop_old=True)
        else:
            time.sleep(builder.failed(DependencyUnavailable("It builds the search indexes.", "instance 0")))
    builder.passed()


def rebuild(
    settings: Settings,
    performer: Performer,
    client: OpenSearchClient,
    *,
    drop_old: bool,
    report: Report = lambda building: None,
) -> list[Building]:
    """Build every index anew, or finish what was begun, and switch to it; what was built.

    Raises `ConfigurationError` when somebody else on this machine does it already.
    """
    waiting = Waiting(BUILDER)
    prefix = settings.search_prefix
    with _alone(settings.state_dir / "search-rebuild.lock"):
        waiting.patiently(lambda: client.forbid_making_indexes(f"{prefix}-*"))
        built = [waiting.patiently(partial(_begin, client, performer, kind, prefix)) for kind in KINDS]
        for building in built:
            while not building.complete:
                _load_page(client, performer, building, waiting)
                report(building)
        old = waiting.patiently(lambda: switch(client, built, prefix))
        _log.info("search indexes switched", new=[building.index for building in built], old=old)
        if drop_old and old:
            # Searches that began before the switch end within their timeout.
            time.sleep(settings.search_timeout_seconds)
            for index in old:
                waiting.patiently(partial(client.delete, index))
    return built


def switch(client: OpenSearchClient, built: Sequence[Building], prefix: str) -> list[str]:
    """Move the read aliases to the new indexes, in one request; the indexes that are not needed any more."""
    actions: list[dict[str, Any]] = []
    old: set[str] = set()
    for building in built:
        read, write = building.kind.read_alias(prefix), building.kind.write_alias(prefix)
        behind = client.behind([read, write])
        actions += [{"remove": {"index": index, "alias": read}} for index in behind[read] if index != building.index]
        actions.append({"add": {"index": building.index, "alias": read}})
        old.update({*behind[read], *behind[write]} - {building.index})
    # What was written within the last second shows only after this.
    client.refresh([building.index for building in built])
    client.change_aliases(actions)
    return sorted(old)


def unfinished(client: OpenSearchClient, kind: Searchable, prefix: str) -> str | None:
    """The index that somebody has begun to build and not switched to."""
    behind = client.behind([kind.read_alias(prefix), kind.write_alias(prefix)])
    serving = max(behind[kind.read_alias(prefix)], default="")
    # Names sort by the time of their making: an older one that is only written was left by a switch.
    newer = [index for index in behind[kind.write_alias(prefix)] if index > serving]
    return max(newer, default=None)


def totals(performer: Performer) -> dict[str, int]:
    """How many documents the database has, by kind."""
    return {kind.name: performer.run(_total(kind)) for kind in KINDS}


def _begin(client: OpenSearchClient, performer: Performer, kind: Searchable, prefix: str) -> Building:
    total = performer.run(_total(kind))
    index = unfinished(client, kind, prefix)
    if index is not None:
        return Building(kind, index, total, **client.notes(index))
    index = f"{kind.read_alias(prefix)}-{datetime.now(UTC):%Y%m%d%H%M%S%f}"
    building = Building(kind, index, total)
    body = kind.index_body()
    body["mappings"]["_meta"] = building.notes()
    client.create(index, body | {"aliases": {kind.write_alias(prefix): {}}})
    return building


def _load_page(client: OpenSearchClient, performer: Performer, building: Building, waiting: Waiting) -> None:
    kind = building.kind
    ids = performer.run(_ids_after(kind, building.after or kind.first))
    made = performer.run(writes(kind, ids, building.index))
    pending = [(each, building.index) for each in made]
    while pending:
        outcome = waiting.patiently(partial(write_to, client, pending))
        for refused, reason in outcome.refused.values():
            # Nothing that waits for a repetition: it is named, and missing until it is mended and written again.
            _log.error("a document is not taken", index=building.index, id=refused.id, reason=reason)
        pending = [(each, building.index) for each in outcome.again]
        if pending:
            time.sleep(waiting.failed(DependencyUnavailable(outcome.reason, "opensearch")))
    building.loaded += sum(each.document is not None for each in made)
    building.complete = len(ids) < PAGE
    if ids:
        building.after = str(ids[-1])
    waiting.patiently(lambda: client.note(building.index, building.notes()))


def _ids_after(kind: Searchable, after: Any) -> Effects[list[Any]]:
    rows = yield Query(kind.after, {"after": after, "limit": PAGE})
    return [row["id"] for row in rows]


def _total(kind: Searchable) -> Effects[int]:
    rows = yield Query(kind.total, {})
    return int(rows[0]["total"])


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError("The search indexes are being built already.") from None
        yield
