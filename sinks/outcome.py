"""What became of something that was sent to somebody else's server."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Outcome:
    """`sent`, `gone` (the target exists no more), `failed` (it will never take this), `retry` (it has not taken it
    and may later), or `unknown` (it may or may not have taken it).

    `after_seconds` is how long the server asks to be left alone. A server that was not reached has `unreached`.
    """

    kind: Literal["sent", "gone", "failed", "retry", "unknown"]
    reason: str | None = None
    after_seconds: float | None = None
    unreached: bool = False


SENT = Outcome("sent")
