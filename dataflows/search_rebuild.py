"""Builds search indexes from the database beside the ones that serve, and switches to them.

1. A new index is made with the write alias in one request, so that the flow writes to it from then on, too.
2. The database is read page by page, each with a version of its own: what the flow has written later wins, whichever
   comes first. After each page the index itself remembers how far it is; who is interrupted goes on there.
3. Each new index is held against the database (dataflows/search_verify.py). One that differs, or refused a document, is
   deleted, and what serves goes on serving; where nothing serves, anything is better.
4. The read aliases of all kinds move in one request. A search meets the old indexes or the new ones.
5. The old indexes go when searches that may still be in them have ended, or are kept, and written, to go back to.

Whatever was committed before step 1 is seen by step 2; the flow looks behind the alias for each request, so it writes
everything later to both.
"""

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from connectors.waiting import Waiting
from dataflows.effects import Performer
from dataflows.search_verify import SearchDiffers, ids_after, require_equal
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
LEFT = "left"
"""What an index remembers that was rolled back from: nobody goes on building it."""

_log = get_logger(__name__)


@dataclass(slots=True)
class Building:
    """An index that is being filled."""

    kind: Searchable
    index: str
    total: int
    loaded: int = 0
    refused: int = 0
    """Documents that OpenSearch did not take."""
    after: str = ""
    """The last id that was read; empty before the first page."""
    complete: bool = False

    def notes(self) -> dict[str, Any]:
        """What the index remembers."""
        return {"loaded": self.loaded, "refused": self.refused, "after": self.after, "complete": self.complete}


def build_missing(settings: Settings, performer: Performer, client: OpenSearchClient) -> None:
    """Build the indexes where searches find none: at the first start, and after OpenSearch has lost them.

    The first instance of the flow does it; the others wait for it. Waits for OpenSearch, too.
    """
    waiting, builder = Waiting(BUILDER), Waiting(BUILDER)
    aliases = {kind.read_alias(settings.search_prefix): kind for kind in KINDS}

    def missing() -> list[Searchable]:
        return [aliases[alias] for alias, indexes in client.behind(list(aliases)).items() if not indexes]

    while kinds := waiting.patiently(missing):
        if settings.flow_instance == 0:
            rebuild(settings, performer, client, drop_old=True, kinds=kinds)
        else:
            time.sleep(builder.failed(DependencyUnavailable("It builds the search indexes.", "instance 0")))
    builder.passed()


def rebuild(
    settings: Settings,
    performer: Performer,
    client: OpenSearchClient,
    *,
    drop_old: bool,
    kinds: Sequence[Searchable] = KINDS,
    report: Report = lambda building: None,
) -> list[Building]:
    """Build these indexes anew, or finish what was begun, and switch to them; what was built.

    Raises `ConfigurationError` when somebody else on this machine does it already, and `SearchDiffers` when a new index
    is not fit to replace the one that serves: then that one is kept, and the new ones are deleted.
    """
    waiting = Waiting(BUILDER)
    prefix = settings.search_prefix
    with _alone(settings.state_dir / "search-rebuild.lock"):
        waiting.patiently(lambda: client.forbid_making_indexes(f"{prefix}-*"))
        built = [waiting.patiently(partial(_begin, client, performer, kind, prefix)) for kind in kinds]
        for building in built:
            while not building.complete:
                _load_page(client, performer, building, waiting)
                report(building)
        serving = waiting.patiently(lambda: client.behind([kind.read_alias(prefix) for kind in kinds]))
        try:
            for building in built:
                if serving[building.kind.read_alias(prefix)]:
                    _require_complete(building)
                    require_equal(performer, client, building.kind, building.index, waiting)
        except SearchDiffers:
            for building in built:
                waiting.patiently(partial(client.delete, building.index))
            raise
        old = waiting.patiently(lambda: switch(client, {each.kind: each.index for each in built}, prefix))
        _log.info("search indexes switched", new=[building.index for building in built], old=old)
        if drop_old and old:
            # Searches that began before the switch end within their timeout.
            time.sleep(settings.search_timeout_seconds)
            for index in old:
                waiting.patiently(partial(client.delete, index))
    return built


def switch(client: OpenSearchClient, to: Mapping[Searchable, str], prefix: str) -> list[str]:
    """Move the read aliases to these indexes, in one request; the indexes that are not needed any more."""
    actions: list[dict[str, Any]] = []
    old: set[str] = set()
    for kind, new in to.items():
        read, write = kind.read_alias(prefix), kind.write_alias(prefix)
        behind = client.behind([read, write])
        actions += [{"remove": {"index": index, "alias": read}} for index in behind[read] if index != new]
        actions.append({"add": {"index": new, "alias": read}})
        old.update({*behind[read], *behind[write]} - {new})
    # What was written within the last second shows only after this.
    client.refresh(list(to.values()))
    client.change_aliases(actions)
    return sorted(old)


def roll_back(settings: Settings, client: OpenSearchClient) -> dict[str, str]:
    """Let the indexes that `rebuild` has kept serve again, and keep the others in their place; the indexes, by kind.

    Raises `ConfigurationError` when there are none.
    """
    prefix = settings.search_prefix
    with _alone(settings.state_dir / "search-rebuild.lock"):
        to: dict[Searchable, str] = {}
        serving: list[str] = []
        for kind in KINDS:
            behind = client.behind([kind.read_alias(prefix), kind.write_alias(prefix)])
            newest = max(behind[kind.read_alias(prefix)], default="")
            kept = [
                index
                for index in behind[kind.write_alias(prefix)]
                if index < newest or (index > newest and client.notes(index).get(LEFT))
            ]
            if not kept:
                raise ConfigurationError(f"There is no index of {kind.name} to go back to: none was kept (--keep-old).")
            serving.append(newest)
            to[kind] = max(kept)
        for index in serving:
            client.note(index, client.notes(index) | {LEFT: True})
        switch(client, to, prefix)
    return {kind.name: index for kind, index in to.items()}


def unfinished(client: OpenSearchClient, kind: Searchable, prefix: str) -> str | None:
    """The index that somebody has begun to build and not switched to."""
    behind = client.behind([kind.read_alias(prefix), kind.write_alias(prefix)])
    serving = max(behind[kind.read_alias(prefix)], default="")
    # Names sort by the time of their making: an older one that is only written was left by a switch.
    newer = [index for index in behind[kind.write_alias(prefix)] if index > serving]
    return max((index for index in newer if not client.notes(index).get(LEFT)), default=None)


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
    ids = performer.run(ids_after(kind, building.after or kind.first))
    made = performer.run(writes(kind, ids, building.index))
    pending = [(each, building.index) for each in made]
    refused_before = building.refused
    while pending:
        outcome = waiting.patiently(partial(write_to, client, pending))
        for refused, reason in outcome.refused.values():
            # Nothing that waits for a repetition: it is named, and with it the index is fit to serve in need only.
            _log.error("a document is not taken", index=building.index, id=refused.id, reason=reason)
        building.refused += len(outcome.refused)
        pending = [(each, building.index) for each in outcome.again]
        if pending:
            time.sleep(waiting.failed(DependencyUnavailable(outcome.reason, "opensearch")))
    building.loaded += sum(each.document is not None for each in made) - (building.refused - refused_before)
    building.complete = len(ids) < PAGE
    if ids:
        building.after = str(ids[-1])
    waiting.patiently(lambda: client.note(building.index, building.notes()))


def _require_complete(building: Building) -> None:
    if building.refused:
        raise SearchDiffers(
            f"OpenSearch does not take {building.refused:,} of the documents of {building.kind.name}, for reasons that"
            " are in the log: the indexes that serve are kept."
        )


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
