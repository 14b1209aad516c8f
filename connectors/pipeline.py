"""One look at the whole pipeline: database, Debezium, Kafka, flows, stores. For the pipeline page.

A look takes tens of milliseconds and blocks; rates are taken from the look before. What does not answer is said in its
own entry, and the rest is shown all the same.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import psycopg
import requests

from connectors import flow_metrics
from connectors.backlog import Backlog, Behind
from connectors.capture import Capture, Captures, slots, unreachable
from connectors.flow_metrics import FlowFigures
from connectors.flows import flows_of, metrics_port
from connectors.letter_log import Ledgers
from fanline.addresses import audit_metrics_port, opensearch_url
from fanline.database import connect, unavailable
from fanline.errors import DependencyUnavailable, FanlineError
from fanline.settings import Settings

Facts = dict[str, Any]

OK, BEHIND, DOWN = "ok", "behind", "down"
# Most flows apply what arrives within milliseconds, some collect for a second or two; more is worth a word.
BEHIND_SECONDS = 5.0
TIMEOUT_SECONDS = 1.0

DATABASE = """
SELECT pg_current_wal_lsn() - '0/0'::pg_lsn AS log_bytes, xact_commit AS commits
FROM pg_stat_database WHERE datname = current_database()
"""


class Pipeline:
    """Looks; keeps its connections. One thread at a time; `close` it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._backlog = Backlog(settings)
        self._captures = Captures(settings)
        self._names = flows_of(settings.database_dialect)
        self._ledgers = Ledgers(self._names, settings)
        self._session = requests.Session()
        self._connection: psycopg.Connection[Any] | None = None
        self._figures: dict[str, FlowFigures | None] = {}
        self._before: dict[str, tuple[float, float]] = {}
        self._instances: dict[str, int] = {}

    def close(self) -> None:
        """Close the connections."""
        self._backlog.close()
        self._captures.close()
        self._ledgers.close()
        self._session.close()
        if self._connection is not None:
            self._connection.close()

    def look(self) -> Facts:
        """The pipeline as it is now."""
        database, found = self._database()
        kafka, behind = self._kafka()
        flows = self._flows(behind)
        audit = f"http://{self._settings.host}:{audit_metrics_port(self._settings)}/metrics"
        self._figures[audit] = flow_metrics.read(audit, self._session)
        return {
            "database": database,
            "connectors": [asdict(each) for each in self._connectors(found)],
            "kafka": kafka,
            "flows": flows,
            "stores": [self._opensearch()],
            "completeness": {
                model: share
                for figures in (*self._figures.values(), self._audit())
                if figures is not None
                for model, share in sorted(figures.completeness.items())
            },
        }

    def _database(self) -> tuple[Facts, dict[str, tuple[int, int]]]:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._settings, autocommit=True)
            found = slots(self._connection)
            try:
                row = self._connection.execute(DATABASE).fetchone()
            except psycopg.errors.UndefinedFunction:
                return {"state": OK, "reason": "", "commits_per_second": None, "log_bytes_per_second": None}, found
            except psycopg.OperationalError as error:
                raise unavailable(error) from error
        except DependencyUnavailable as error:
            self._connection = None
            return {"state": DOWN, "reason": str(error), "commits_per_second": None, "log_bytes_per_second": None}, {}
        log_bytes, commits = map(float, row or (0, 0))
        return {
            "state": OK,
            "reason": "",
            "commits_per_second": self._rate("commits", commits),
            "log_bytes_per_second": self._rate("log", log_bytes),
        }, found

    def _connectors(self, found: dict[str, tuple[int, int]]) -> Sequence[Capture]:
        try:
            return self._captures.look(found)
        except DependencyUnavailable as error:
            return unreachable(self._settings, error, found)

    def _kafka(self) -> tuple[Facts, list[Behind]]:
        try:
            behind = self._backlog.measure()
            self._ledgers.read()
        except FanlineError as error:
            return {"state": DOWN, "reason": str(error), "records_per_second": None, "topics": 0}, []
        ends = {(each.topic, each.partition): each.end for each in behind}
        rate = self._rate("kafka", float(sum(ends.values())))
        topics = len({topic for topic, _ in ends})
        return {"state": OK, "reason": "", "records_per_second": rate, "topics": topics}, behind

    def _flows(self, behind: Sequence[Behind]) -> list[Facts]:
        late: dict[str, list[Behind]] = defaultdict(list)
        for each in behind:
            late[each.flow].append(each)
            if "/" in each.by:
                self._instances[each.flow] = int(each.by.split("/")[1])
        return [self._flow(flow, late[flow]) for flow in self._names]

    def _flow(self, flow: str, behind: Sequence[Behind]) -> Facts:
        instances = self._instances.get(flow, 1)
        read = [self._instance(flow, instance) for instance in range(instances)]
        answering = [rate for rate in read if rate is not None]
        seconds = max((each.seconds for each in behind), default=0.0)
        records = sum(each.records for each in behind)
        # The archive applies events when it closes a file.
        patience = BEHIND_SECONDS + (self._settings.archive_file_seconds if flow == "archive" else 0)
        state = DOWN if not answering else BEHIND if len(answering) < instances or seconds > patience else OK
        return {
            "name": flow,
            "state": state,
            "waits_for": self._waits(flow, instances),
            "instances": instances,
            "answering": len(answering),
            "records_per_second": round(sum(answering), 1) if answering else None,
            "behind_records": records if behind else None,
            "behind_seconds": round(seconds, 1) if behind else None,
            "dead_letters": len(self._ledgers.of_flow[flow].letters),
        }

    def _instance(self, flow: str, instance: int) -> float | None:
        """Records a second of one instance; None when it does not answer."""
        url = self._url(flow, instance)
        before, now = self._figures.get(url), flow_metrics.read(url, self._session)
        self._figures[url] = now
        return None if now is None else now.rate(before)

    def _waits(self, flow: str, instances: int) -> dict[str, float]:
        """What the instances wait for, and how many seconds the longest has been waiting."""
        longest: dict[str, float] = {}
        for figures in [self._figures[self._url(flow, instance)] for instance in range(instances)]:
            for dependency, seconds in figures.waits_for.items() if figures else ():
                longest[dependency] = max(seconds, longest.get(dependency, 0.0))
        return longest

    def _url(self, flow: str, instance: int) -> str:
        port = metrics_port(self._settings.flows_metrics_port, flow, instance)
        return f"http://{self._settings.host}:{port}/metrics"

    def _audit(self) -> FlowFigures | None:
        """What the audit that always runs says; None when it does not run."""
        port = audit_metrics_port(self._settings)
        return flow_metrics.read(f"http://{self._settings.host}:{port}/metrics", self._session)

    def _opensearch(self) -> Facts:
        with contextlib.suppress(requests.RequestException, ValueError, KeyError):
            response = self._session.get(f"{opensearch_url(self._settings)}/_stats/docs,store", timeout=TIMEOUT_SECONDS)
            totals = response.json()["_all"]["primaries"]
            documents, size = totals.get("docs", {}).get("count", 0), totals.get("store", {}).get("size_in_bytes", 0)
            return {"name": "OpenSearch", "state": OK, "holds": documents, "unit": "documents", "bytes": size}
        return {"name": "OpenSearch", "state": DOWN, "holds": None, "unit": "documents", "bytes": None}

    def _rate(self, what: str, value: float) -> float | None:
        """How much a second a total has grown since the look before; None at the first look."""
        now = time.monotonic()
        then, before = self._before.get(what, (now, value))
        self._before[what] = now, value
        return round(max(0.0, value - before) / (now - then), 1) if now > then else None
