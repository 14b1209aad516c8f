"""One rebuild of a model at a time: a key in Redis that expires, and that whoever rebuilds renews.

Whoever crashes renews no more, and leaves nothing behind for longer than `SECONDS`. Whoever was held up for longer than
that finds out before doing anything that another may have begun to do (`Lease.require`).
"""

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fanline.errors import ConfigurationError, DependencyUnavailable, FanlineError
from fanline.redis_nodes import RedisNodes, open_redis_nodes
from fanline.settings import Settings
from readmodels.effects import Command, command
from readmodels.generations import lease_key

SECONDS = 30.0
"""How long a lease lasts that nobody renews."""
RENEWALS = 6
"""How often it is renewed in that time: a server may be away for some of them."""


class LeaseLost(FanlineError):
    """The lease expired before it was renewed: somebody else may rebuild the model by now."""


class Lease:
    """The right to rebuild a model, for as long as it is renewed."""

    def __init__(self, nodes: RedisNodes, model: str, seconds: float) -> None:
        self._nodes, self._model, self._seconds = nodes, model, seconds
        self._token = secrets.token_bytes(8)
        self._until = 0.0

    def take(self) -> None:
        """Take it; raises `ConfigurationError` when somebody has it."""
        began = time.monotonic()
        milliseconds = int(self._seconds * 1_000)
        taken = self._run(command(lease_key(self._model), b"SET", self._token, b"NX", b"PX", milliseconds))
        # A repetition after a lost answer finds what it wrote itself.
        if taken is None and not self._is_held():
            raise ConfigurationError(f"Another rebuild of {self._model} is going on: wait until it has ended.")
        self._until = began + self._seconds

    def renew(self) -> None:
        """Make it last; once lost it stays so."""
        began = time.monotonic()
        if self._is_held():
            self._run(command(lease_key(self._model), b"PEXPIRE", int(self._seconds * 1_000)))
            self._until = began + self._seconds

    def give_back(self) -> None:
        """Let others have it."""
        if self._is_held():
            self._run(command(lease_key(self._model), b"DEL"))

    def require(self) -> None:
        """Raises `LeaseLost` when somebody else may have it."""
        if time.monotonic() > self._until:
            raise LeaseLost(f"This rebuild of {self._model} stood still for too long; call it again to go on.")

    def _is_held(self) -> bool:
        return bool(self._run(command(lease_key(self._model), b"GET")) == self._token)

    def _run(self, each: Command) -> object:
        return self._nodes.execute([(each.key, each.data)])[0]


@contextmanager
def alone(settings: Settings, model: str, seconds: float = SECONDS) -> Iterator[Lease]:
    """Rebuild a model alone within the block; raises `ConfigurationError` when somebody else does it."""
    over = threading.Event()
    nodes = open_redis_nodes(settings)
    lease = Lease(nodes, model, seconds)

    def keep() -> None:
        while not over.wait(seconds / RENEWALS):
            try:
                lease.renew()
            except DependencyUnavailable:
                # Redis is away: it is tried again, and if that lasts `require` says so.
                continue

    try:
        lease.take()
        keeper = threading.Thread(target=keep, name="lease", daemon=True)
        keeper.start()
        try:
            yield lease
        finally:
            over.set()
            keeper.join()
            lease.give_back()
    finally:
        nodes.close()
