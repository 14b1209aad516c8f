"""The recovery stores of dataflows: where they are, who holds them, what is in them.

An instance of a flow has a folder of its own, `recovery/<flow>-<instance>` in FANLINE_STATE_DIR, with the SQLite files
of Bytewax and a lock that the running process holds. A store holds the position in each partition and the state of the
flow's steps as of the last snapshot. Nothing is lost with it: without a store a flow goes on from its consumer
group's offsets, below which everything is applied.
"""

import contextlib
import fcntl
import io
import pickle
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from connectors.offsets import Partition
from fanline.errors import ConfigurationError
from fanline.settings import Settings

PARTS = "part-*.sqlite3"

# The newest snapshot of each state up to the epoch that is committed; older ones wait for Bytewax's cleaning.
SNAPSHOTS = """
SELECT step_id, state_key, snap_epoch, ser_change FROM (
  SELECT *, row_number() OVER (PARTITION BY step_id, state_key ORDER BY snap_epoch DESC) AS newness FROM snaps
) WHERE newness = 1 ORDER BY step_id, state_key
"""


def folder(flow: str, instance: int, settings: Settings) -> Path:
    """The folder of an instance's recovery store."""
    return settings.state_dir / "recovery" / f"{flow}-{instance}"


def folders(flow: str, settings: Settings) -> list[Path]:
    """The folders of all instances that a flow has had here."""
    found = (settings.state_dir / "recovery").glob(f"{flow}-*")
    return sorted(path for path in found if path.name.removeprefix(f"{flow}-").isdigit())


@contextlib.contextmanager
def held(store: Path, flow: str) -> Iterator[None]:
    """Hold a recovery store, which two processes must not share; raises `ConfigurationError` when another does."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(f"The dataflow {flow} runs already: another process holds {store}.") from None
        yield


@contextlib.contextmanager
def all_held(flow: str, settings: Settings) -> Iterator[list[Path]]:
    """Hold every store of a flow, so that no instance runs or starts meanwhile; raises `ConfigurationError`."""
    stores = folders(flow, settings)
    with contextlib.ExitStack() as stack:
        for store in stores:
            stack.enter_context(held(store, flow))
        yield stores


def forget(store: Path) -> None:
    """Remove what a store holds; the flow then starts from its group's offsets."""
    for part in [*store.glob(PARTS), *store.glob(f"{PARTS}-*")]:
        part.unlink(missing_ok=True)


@dataclass(frozen=True)
class StepState:
    """The snapshots of one step of a flow."""

    step: str
    keys: int
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Store:
    """What a recovery store holds."""

    folder: Path
    executions: int
    """How often the flow has started on it."""
    epoch: int
    """The newest epoch that is committed."""
    steps: list[StepState] = field(default_factory=list)
    positions: dict[Partition, int] = field(default_factory=dict)
    """The next offset of each partition, as of the last snapshot."""


def inspect(store: Path) -> Store | None:
    """What a store holds, also while its flow runs; None when it is empty."""
    parts = sorted(store.glob(PARTS))
    if not parts:
        return None
    executions, epoch = 0, 0
    steps: dict[str, StepState] = {}
    positions: dict[Partition, int] = {}
    for part in parts:
        with contextlib.closing(sqlite3.connect(f"file:{part}?mode=ro", uri=True, timeout=5)) as database:
            executions = max(executions, *(row[0] + 1 for row in database.execute("SELECT ex_num FROM exs")), 0)
            epoch = max(epoch, *(row[0] for row in database.execute("SELECT commit_epoch FROM commits")), 0)
            for step, _, _, change in database.execute(SNAPSHOTS):
                known = steps.get(step, StepState(step, 0, 0))
                steps[step] = StepState(step, known.keys + 1, known.size + len(change or b""))
                if step.endswith(".source"):
                    positions |= _positions(change or b"")
    return Store(store, executions, epoch, list(steps.values()), positions)


class _OnlyPlain(pickle.Unpickler):
    """Reads dictionaries, tuples, texts and numbers, and runs nothing."""

    def find_class(self, module: str, name: str) -> object:
        """Refuse: positions need no class."""
        raise pickle.UnpicklingError(f"{module}.{name} is not wanted")


def _positions(change: bytes) -> dict[Partition, int]:
    """The positions in a source's snapshot; none when it holds something else."""
    try:
        found = _OnlyPlain(io.BytesIO(change)).load()
    except (pickle.UnpicklingError, EOFError, IndexError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {place: offset for place, offset in found.items() if isinstance(place, tuple) and isinstance(offset, int)}
