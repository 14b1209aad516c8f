"""What the audit that always runs has found of late, by read model, as the metric that says how right each is."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from fanline import metrics


class Completeness:
    """The share of reads of the last `window_seconds` that were equal to the database; none where there were no reads.

    It outlives the connections of an audit that waits for a server. One thread only.
    """

    def __init__(self, window_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._window, self._clock = window_seconds, clock
        self._results: dict[str, deque[tuple[float, bool]]] = defaultdict(deque)

    def add(self, model: str, equal: Sequence[bool]) -> None:
        """Take in whether each of some reads of a model was equal; none when there was nothing to compare."""
        now = self._clock()
        results = self._results[model]
        results.extend((now, each) for each in equal)
        while results and results[0][0] < now - self._window:
            results.popleft()
        if results:
            metrics.COMPLETENESS.labels(model).set(sum(each for _, each in results) / len(results))
        else:
            # A share that nothing has confirmed of late would look like one of now.
            metrics.COMPLETENESS.remove(model)

    def expire(self) -> None:
        """Forget what is older than the window, while nothing can be compared."""
        for model in self._results:
            self.add(model, ())
