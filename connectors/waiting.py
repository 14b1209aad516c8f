"""How a flow waits for a server that is away: as long as it takes, with growing pauses, and saying what it waits for.

It is said in the log when it begins, now and then, and when it ends, and meanwhile in `fanline_waiting_seconds`, which
`fanline dataflows list` and the pipeline page show.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import psycopg
import redis

from connectors import lifecycle
from fanline.errors import DependencyUnavailable
from fanline.logging import get_logger
from fanline.metrics import WAITING_SECONDS

T = TypeVar("T")

# A restart on one machine takes well under a second; a long outage is looked at every other second.
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
LOG_AGAIN_SECONDS = 10.0
# A process that has been asked to stop waits this long for a server before it gives up what it has not done, which
# is read again at the next start. Less than the grace that supervisors give.
STOPPING_SECONDS = 5.0
GIVEN_UP = "; what is not written will be read again"

# What a server that is away or restarting raises; everything else is a defect and ends the flow.
TRANSIENT = (DependencyUnavailable, redis.ConnectionError, redis.TimeoutError, psycopg.OperationalError)

_log = get_logger(__name__)
_waits: dict[str, dict["Waiting", float]] = {}
"""Who waits for what, and since when (monotonic)."""


class Waiting:
    """One part's outages: when each began, what was said of it. Threads that meet here may only note and pass."""

    def __init__(self, part: str) -> None:
        """`part` is who waits, as the log calls it."""
        self._part = part
        self._dependency = ""
        self._since: float | None = None
        self._logged_at = 0.0
        self._stopping_since: float | None = None
        self._pause = FIRST_PAUSE_SECONDS

    def patiently(
        self,
        attempt: Callable[[], T],
        *,
        again: Callable[[], None] = lambda: None,
        failures: tuple[type[Exception], ...] = TRANSIENT,
        dependency: str = "",
    ) -> T:
        """What `attempt` returns, once it fails with none of `failures`; `again` is called before each repetition.

        Raises `DependencyUnavailable` only when the process has been asked to stop meanwhile.
        """
        while True:
            began = time.monotonic()
            try:
                result = attempt()
            except failures as error:
                again()
                time.sleep(self.failed(error, since=began, dependency=dependency))
            else:
                self.passed()
                return result

    def failed(self, error: Exception, *, since: float | None = None, dependency: str = "") -> float:
        """Note a failed attempt, as `note` does; returns the seconds to pause.

        Raises `DependencyUnavailable` when the process has been asked to stop and has waited long enough.
        """
        self.note(error, since=since, dependency=dependency)
        if lifecycle.stop_requested():
            now = time.monotonic()
            self._stopping_since = self._stopping_since or now
            if now - self._stopping_since > STOPPING_SECONDS:
                self._end()
                # Whoever waits around this one gives up, too.
                reason = _reason(error).removesuffix(GIVEN_UP)
                raise DependencyUnavailable(f"{reason}{GIVEN_UP}.", self._dependency)
        pause, self._pause = self._pause, min(LONGEST_PAUSE_SECONDS, self._pause * 2)
        return pause

    def note(self, error: Exception, *, since: float | None = None, dependency: str = "") -> None:
        """Note that this part waits because of an error, since now or since the attempt began that ended with it.

        What is waited for is `dependency`, or what the error tells of.
        """
        now = time.monotonic()
        dependency = dependency or dependency_of(error)
        if self._since is None or dependency != self._dependency:
            self._end()
            self._dependency, self._since = dependency, now if since is None else since
            _begin(dependency, self, self._since)
        if now - self._logged_at > LOG_AGAIN_SECONDS:
            self._logged_at = now
            seconds = round(now - self._since, 1)
            _log.warning("waits", part=self._part, dependency=dependency, reason=_reason(error), seconds=seconds)

    def passed(self) -> None:
        """Note that the server answers."""
        if self._since is not None:
            self._end()
            self._stopping_since = None

    def _end(self) -> None:
        since = self._since
        if since is None:
            return
        seconds = round(time.monotonic() - since, 3)
        _log.info("goes on", part=self._part, dependency=self._dependency, seconds=seconds)
        _waits[self._dependency].pop(self, None)
        self._since, self._logged_at, self._pause = None, 0.0, FIRST_PAUSE_SECONDS


def dependency_of(error: Exception) -> str:
    """The name of the server that an error tells of: database, redis, kafka, registry, opensearch, ..."""
    if isinstance(error, DependencyUnavailable):
        return error.dependency or "unknown"
    if isinstance(error, psycopg.Error):
        return "database"
    return "redis" if isinstance(error, redis.RedisError) else "unknown"


def _begin(dependency: str, waiting: Waiting, since: float) -> None:
    waits = _waits.setdefault(dependency, {})
    waits[waiting] = since
    WAITING_SECONDS.labels(lifecycle.flow_name(), dependency).set_function(partial(_longest, waits))


def _longest(waits: dict[Waiting, float]) -> float:
    # A copy: other threads begin and end to wait.
    since = min(tuple(waits.values()), default=None)
    return 0.0 if since is None else max(0.0, time.monotonic() - since)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).rstrip(".")
