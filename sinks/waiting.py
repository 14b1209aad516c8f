"""How a sink waits for a server that is away: as long as it takes, with growing pauses, saying so in the log."""

import time

from connectors.lifecycle import stop_requested
from fanline.errors import DependencyUnavailable
from fanline.logging import get_logger

# A restart on one machine takes well under a second; a long outage is looked at every other second.
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
LOG_AGAIN_SECONDS = 10.0
# A process that has been asked to stop waits this long for a server before it gives up its unwritten items, which
# are read again at the next start. Less than the grace that supervisors give.
STOPPING_SECONDS = 5.0

_log = get_logger(__name__)


class Waiting:
    """One sink's outage: when it began, what was said of it."""

    def __init__(self, sink: str) -> None:
        self._sink = sink
        self._since: float | None = None
        self._logged_at = 0.0
        self._stopping_since: float | None = None
        self._pause = FIRST_PAUSE_SECONDS

    def failed(self, reason: str) -> float:
        """Note a failure; returns the seconds to pause.

        Raises `DependencyUnavailable` when the process has been asked to stop and has waited long enough.
        """
        now = time.monotonic()
        if self._since is None:
            self._since, self._pause = now, FIRST_PAUSE_SECONDS
        if now - self._logged_at > LOG_AGAIN_SECONDS:
            self._logged_at = now
            _log.warning("sink waits", sink=self._sink, reason=reason, seconds=round(now - self._since, 1))
        if stop_requested():
            self._stopping_since = self._stopping_since or now
            if now - self._stopping_since > STOPPING_SECONDS:
                raise DependencyUnavailable(f"{reason.rstrip('.')}; the unwritten records will be read again.")
        pause, self._pause = self._pause, min(LONGEST_PAUSE_SECONDS, self._pause * 2)
        return pause

    def passed(self) -> None:
        """Note that the server answers."""
        if self._since is not None:
            _log.info("sink goes on", sink=self._sink, seconds=round(time.monotonic() - self._since, 3))
            self._since, self._logged_at, self._stopping_since = None, 0.0, None
