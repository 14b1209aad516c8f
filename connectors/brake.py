"""When too many records are rejected, a flow stops instead of emptying its topic into the dead letters."""

from collections import deque

from fanline.errors import DeadLetterBrake


class Brake:
    """Counts accepted and rejected records; raises `DeadLetterBrake` past either limit.

    A bad record now and then is an accident and goes to the dead letters. Many of them are a bad deployment, here or
    at the producer, which a person has to mend; the records then wait in their topic.
    """

    def __init__(self, flow: str, *, window: int, ratio: float, consecutive: int) -> None:
        """`ratio` of the last `window` records, and rejections in a row (`consecutive`), at which the flow stops."""
        self._flow = flow
        self._window = window
        self._allowed = ratio * window
        self._limit = consecutive
        self._seen = 0
        self._in_a_row = 0
        self._rejected_at: deque[int] = deque()

    def accepted(self, records: int = 1) -> None:
        """Count records that were understood."""
        if records:
            self._seen += records
            self._in_a_row = 0

    def rejected(self, reason: str) -> None:
        """Count a record that was not; raises `DeadLetterBrake` when that was one too many."""
        self._seen += 1
        self._in_a_row += 1
        self._rejected_at.append(self._seen)
        while self._rejected_at[0] <= self._seen - self._window:
            self._rejected_at.popleft()
        if self._in_a_row >= self._limit:
            raise self._stop(f"{self._in_a_row} records in a row", reason)
        if len(self._rejected_at) >= self._allowed:
            raise self._stop(f"{len(self._rejected_at)} of the last {min(self._seen, self._window)} records", reason)

    def _stop(self, how_many: str, reason: str) -> DeadLetterBrake:
        return DeadLetterBrake(
            f"The flow {self._flow} stops, as it had to reject {how_many}; the newest because: {reason.rstrip('.')}. "
            "Mend the cause; the flow then goes on where it stopped."
        )
