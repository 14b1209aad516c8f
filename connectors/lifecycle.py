"""What the parts of one dataflow process share: the wish to stop, and a pulse.

The pulse comes from the source, which is called about every millisecond even when nothing arrives. Sinks use it to
take in acknowledgements without waiting for their next batch. One process runs one worker, so all is on one thread.
"""

import threading
from collections.abc import Callable

_stop = threading.Event()
_on_pulse: list[Callable[[], None]] = []


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


def reset() -> None:
    """Forget the wish to stop and all callbacks: before and after a flow."""
    _stop.clear()
    _on_pulse.clear()
