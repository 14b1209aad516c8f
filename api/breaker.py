"""A circuit breaker for asyncio: after some failures in a row the dependency is left alone for a while.

The counting and the waiting are the `circuitbreaker` library's. It lets every caller through once the wait is over;
here one caller probes while the others stay away, as each of them would otherwise wait for the same timeout.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from circuitbreaker import STATE_CLOSED, STATE_OPEN, CircuitBreaker


class CircuitOpen(Exception):
    """The dependency is being left alone."""


class Breaker:
    """Opens after `failures` failures in a row and lets one caller try again every `pause` seconds."""

    def __init__(self, failure: type[Exception], *, failures: int = 3, pause: float = 1.0) -> None:
        self._failure = failure
        self._circuit = CircuitBreaker(failures, pause, failure, name="redis")  # type: ignore[no-untyped-call]
        self._probing = False

    @property
    def closed(self) -> bool:
        """Whether calls go through."""
        return bool(self._circuit.state == STATE_CLOSED)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Around a use of the dependency; raises `CircuitOpen` instead of letting it begin."""
        state = self._circuit.state
        probe = state != STATE_CLOSED
        if state == STATE_OPEN or (probe and self._probing):
            raise CircuitOpen
        self._probing = probe or self._probing
        try:
            yield
        except self._failure as error:
            self._circuit.__exit__(self._failure, error, None)  # type: ignore[no-untyped-call]
            raise
        else:
            # What ends otherwise (a cancelled request, an error reply) tells nothing of the dependency.
            self._circuit.reset()  # type: ignore[no-untyped-call]
        finally:
            if probe:
                self._probing = False
