"""What is known of a rebuild: the hash of readmodels/generations.py in words."""

import time
from dataclasses import dataclass

from audit.stores import Stores
from fanline.errors import ConfigurationError
from readmodels import generations

BUILD, COMPARE, KEPT = "build", "compare", "kept"
"""The steps: the new generation is being built; it waits to serve; the old one is kept for a rollback."""


@dataclass(frozen=True, slots=True)
class State:
    """The generations of a read model and how far a rebuild has come."""

    model: str
    serving: int = 0
    written: int | None = None
    step: str = ""
    part: int = 0
    cursor: str = ""
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    """Time spent building so far."""
    free_after: float | None = None
    """Unix time after which the old generation may be freed."""

    @property
    def seconds_left(self) -> float | None:
        """The estimate, at the rate so far; None before anything is known."""
        return self.seconds * (self.total - self.done) / self.done if self.done else None

    def is_due(self, now: float) -> bool:
        """Whether the old generation was kept long enough."""
        return self.step == KEPT and self.free_after is not None and self.free_after <= now

    def sentence(self) -> str:
        """The state in words."""
        if self.written is None:
            return f"{self.model}: generation {self.serving} serves."
        if self.step == KEPT:
            left = "" if self.free_after is None else f", {max(0.0, self.free_after - time.time()) / 3_600:.1f} h more"
            return f"{self.model}: generation {self.serving} serves, {self.written} is kept for a rollback{left}."
        if self.step == COMPARE:
            return f"{self.model}: generation {self.serving} serves, {self.written} is built and may be switched to."
        left = "" if self.seconds_left is None else f", about {self.seconds_left:.0f} s left"
        progress = f"{self.done:,} of {self.total:,}{left}"
        return f"{self.model}: generation {self.serving} serves, {self.written} is being built: {progress}."


def load(stores: Stores, model: str) -> State:
    """The state as Redis has it."""
    reply = stores.redis([generations.read_all(model)])[0]
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    found = {name.decode(): value.decode() for name, value in pairs}
    return State(
        model=model,
        serving=int(found.get("serving", 0)),
        written=int(found["written"]) if "written" in found else None,
        step=found.get("step", ""),
        part=int(found.get("part", 0)),
        cursor=found.get("cursor", ""),
        done=int(found.get("done", 0)),
        total=int(found.get("total", 0)),
        seconds=float(found.get("seconds", 0)),
        free_after=float(found["free_after"]) if "free_after" in found else None,
    )


def require_step(state: State, step: str, wish: str) -> int:
    """The generation beside the serving one; raises `ConfigurationError` when the rebuild is at another step."""
    if state.written is None or state.step != step:
        raise ConfigurationError(f"There is nothing to {wish}. {state.sentence()}")
    return state.written
