"""What the parts of one dataflow process share: its name, the wish to stop, a pulse, and how it failed to end.

The pulse comes from the source, which is called about every millisecond even when nothing arrives. Sinks use it to
take in acknowledgements without waiting for their next batch. One process runs one worker, so all is on one thread.
"""

import threading
from collections.abc import Callable

_flow = ""
_stop = threading.Event()
_on_pulse: list[Callable[[], None]] = []
_close_failures: list[Exception] = []


def flow_name() -> str:
    """The flow that this process runs; empty when it runs none."""
    return _flow


def request_stop() -> None:
    """Ask the sources to end; the flow then drains and the process exits. Safe in a signal handler."""
    _stop.set()


def stop_requested() -> bool:
    """Whether the process has been asked to stop."""
    return _stop.is_set()


def on_pulse(callback: Callable[[], None]) -> None:
    """Call something at each pulse, until `reset`."""
    _on_pulse.append(callback)


def pulse() -> None:
    """Call everything that waits for the pulse; what it raises ends the flow."""
    for callback in _on_pulse:
        callback()


def failed_to_close(error: Exception) -> None:
    """Keep what a part could not raise while the engine closed it."""
    _close_failures.append(error)


def raise_close_failure() -> None:
    """Raise the first failure that was kept, when the engine has ended."""
    if _close_failures:
        raise _close_failures[0]


def reset(flow: str = "") -> None:
    """Forget the wish to stop, all callbacks and failures: before and after a flow, whose name it takes."""
    global _flow
    _flow = flow
    _stop.clear()
    _on_pulse.clear()
    _close_failures.clear()
