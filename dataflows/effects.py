"""Drives the read models' generators with this process's Redis nodes and database connection."""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from connectors.waiting import Waiting
from fanline.database import connect
from fanline.logging import get_logger
from fanline.redis_nodes import RedisNodes, open_redis_nodes
from fanline.settings import Settings
from readmodels import generations
from readmodels.effects import Effects, Query, Redis, drive
from readmodels.following import Limits
from readmodels.generations import Generations
from readmodels.visibility import ALL_RECORDED, ALL_VISIBLE

Result = TypeVar("Result")

# A commit becomes visible within microseconds unless its process has lost the processor: about one time slice.
VISIBLE_PAUSE_SECONDS = 0.002
# Far longer than a commit takes to become visible, short enough that a pruned outbox does not stop a flow.
RECORDED_SECONDS = 5.0

_log = get_logger(__name__)


class Performer:
    """Redis and the database, connected when they are first needed. One thread only.

    Every effect is idempotent, so one that a server which is away did not answer is tried again until it does. Raises
    `DependencyUnavailable` only when the process has been asked to stop meanwhile.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._waiting = Waiting(name)
        self._nodes: RedisNodes | None = None
        self._connection: psycopg.Connection[Any] | None = None

    @property
    def nodes(self) -> RedisNodes:
        """The Redis nodes, with Fanline's functions loaded."""
        if self._nodes is None:
            self._nodes = self._waiting.patiently(self._open)
        return self._nodes

    def run(self, effects: Effects[Result]) -> Result:
        """Runs a generator to its end."""
        return drive(
            effects,
            lambda batch: self._waiting.patiently(lambda: self._redis(batch)),
            lambda query: self._waiting.patiently(lambda: self._query(query)),
        )

    def generations(self, model: str) -> Generations:
        """The generations of a read model, asked of Redis now."""
        return generations.parse(self._waiting.patiently(lambda: self._redis(Redis([generations.read(model)])))[0])

    def each(self, models: Sequence[str], make: Callable[[], Effects[Result]]) -> Result:
        """Runs what `make` makes in every generation of these read models; the result of the serving ones."""
        numbers = [self.generations(model).all for model in models]
        results = []
        for combination in product(*numbers):
            with ExitStack() as stack:
                for model, number in zip(models, combination, strict=True):
                    stack.enter_context(generations.using(model, number))
                results.append(self.run(make()))
        return results[0]

    def wait_until_visible(self, transactions: Collection[int]) -> None:
        """Returns when queries see everything that these transactions have committed (readmodels/visibility.py)."""
        query = Query(ALL_VISIBLE, {"transactions": list(transactions)})
        while not self._waiting.patiently(lambda: self._query(query))[0]["all_visible"]:
            time.sleep(VISIBLE_PAUSE_SECONDS)

    def wait_until_recorded(self, events: Collection[UUID]) -> None:
        """Returns when queries see the rows that these events, by outbox id, tell of (readmodels/visibility.py).

        Rows that are not there after `RECORDED_SECONDS` have been removed by hand.
        """
        query = Query(ALL_RECORDED, {"events": list(events)})
        until = time.monotonic() + RECORDED_SECONDS
        while not self._waiting.patiently(lambda: self._query(query))[0]["all_recorded"]:
            if time.monotonic() > until:
                _log.warning("events without their outbox rows", events=len(events))
                return
            time.sleep(VISIBLE_PAUSE_SECONDS)

    def close(self) -> None:
        """Closes the connections."""
        if self._nodes is not None:
            self._nodes.close()
        if self._connection is not None:
            self._connection.close()

    def _open(self) -> RedisNodes:
        nodes = open_redis_nodes(self._settings)
        nodes.load_functions(Path(str(files("readmodels").joinpath("functions"))))
        return nodes

    def _redis(self, batch: Redis) -> list[Any]:
        return self.nodes.execute([(command.key, command.data) for command in batch.commands])

    def _query(self, query: Query) -> Sequence[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._settings, autocommit=True, repeating=True)
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.sql, query.parameters).fetchall()


def limits(settings: Settings) -> Limits:
    """The settings that timelines and followers are kept by."""
    return Limits(
        timeline_cap=settings.timeline_cap,
        timeline_slack=settings.timeline_slack,
        followers_chunk=settings.followers_chunk,
        celebrity_threshold=settings.celebrity_threshold,
    )
