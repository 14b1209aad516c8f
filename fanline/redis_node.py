"""What is known of one Redis node: its connection, or what waits for it and since when."""

import time
from collections import deque
from dataclasses import dataclass, field

from fanline.logging import get_logger
from fanline.redis_connection import Address, Connection, Exchange

# A restart on one machine takes well under a second, so the first tries are close together; a long outage is asked
# after once a second, which costs nothing and is noticed soon enough.
FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 1.0
LOG_AGAIN_SECONDS = 10.0

_log = get_logger(__name__)


def pause_seconds(failures: int) -> float:
    """How long to wait after the given number of failures, from 0."""
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * float(2 ** min(failures, 10)))


@dataclass(slots=True)
class Node:
    """One node; `loading` tells that its functions are being loaded."""

    connection: Connection | None = None
    backlog: deque[Exchange] = field(default_factory=deque)
    retry_at: float = 0.0
    failures: int = 0
    down_since: float = 0.0
    logged_at: float = 0.0
    error: str = ""
    loading: bool = False

    def put(self, exchange: Exchange) -> None:
        """Send an exchange, now or when there is a connection."""
        if self.connection is not None:
            self.connection.put(exchange)
        else:
            self.backlog.append(exchange)

    def failed(self, address: Address, error: Exception) -> None:
        """Note that there is no connection, and when to try again; logs an outage at its start and now and then."""
        now = time.monotonic()
        self.error = str(error) or type(error).__name__
        if not self.failures:
            self.down_since = now
        if not self.failures or now - self.logged_at > LOG_AGAIN_SECONDS:
            self.logged_at = now
            _log.warning("waiting for redis", address=str(address), error=self.error)
        self.retry_at = now + pause_seconds(self.failures)
        self.failures += 1

    def connected(self, connection: Connection) -> bool:
        """Take a connection and send what has waited; returns whether it ends an outage."""
        outage = self.failures > 0
        if outage:
            seconds = round(time.monotonic() - self.down_since, 3)
            _log.info("redis answers again", address=str(connection.address), seconds=seconds)
        self.connection, self.failures, self.error, self.loading = connection, 0, "", False
        while self.backlog:
            connection.put(self.backlog.popleft())
        return outage

    def disconnect(self) -> list[Exchange]:
        """Close the connection; returns what it has left unanswered, as if it had never been sent."""
        if self.connection is None:
            return []
        self.connection.close()
        unanswered = list(self.connection.inflight)
        self.connection = None
        for exchange in unanswered:
            exchange.replies.clear()
            exchange.has_errors = False
        return unanswered
