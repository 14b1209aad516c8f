"""Looking into recovery stores, and what a reset says before it is done."""

import pickle
import sqlite3
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

from connectors import recovery
from connectors.applied import Commit
from connectors.moves import Move, Standing, describe, plan
from fanline.errors import ConfigurationError
from fanline.settings import Settings


def store_with(folder: Path, change: bytes) -> None:
    folder.mkdir(parents=True)
    init_db_dir(str(folder), 1)
    with sqlite3.connect(folder / "part-0.sqlite3") as database:
        database.execute("INSERT INTO exs (ex_num, worker_count, resume_epoch) VALUES (0, 1, 1), (1, 1, 5)")
        database.execute("INSERT INTO commits (part_index, commit_epoch) VALUES (0, 8)")
        rows = [
            ("f.source", "partitions", 7, b"old"),
            ("f.source", "partitions", 8, change),
            ("f.sink", "0", 8, b"xyz"),
        ]
        database.executemany("INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) VALUES (?, ?, ?, ?)", rows)
    database.close()


def test_a_store_tells_its_starts_its_epoch_its_steps_and_the_newest_positions(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    positions = {("cdc.posts", 0): 41, ("cdc.posts", 1): 7}
    store_with(recovery.folder("timelines", 0, settings), pickle.dumps(positions))
    [folder] = recovery.folders("timelines", settings)
    found = recovery.inspect(folder)
    assert found is not None
    assert (found.executions, found.epoch, found.positions) == (2, 8, positions)
    assert {(step.step, step.keys) for step in found.steps} == {("f.source", 1), ("f.sink", 1)}


def test_looking_into_a_store_runs_nothing_that_is_in_it(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "trapped",))  # type: ignore[return-value]

    settings = Settings(state_dir=tmp_path)
    store_with(recovery.folder("timelines", 0, settings), pickle.dumps(Trap()))
    found = recovery.inspect(recovery.folder("timelines", 0, settings))
    assert found is not None
    assert found.positions == {}
    assert not (tmp_path / "trapped").exists()


def test_a_forgotten_store_is_empty_and_other_flows_stores_stay(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    for flow in ("timelines", "timelines-x"):
        store_with(recovery.folder(flow, 0, settings), pickle.dumps({}))
    assert recovery.folders("timelines", settings) == [recovery.folder("timelines", 0, settings)]
    recovery.forget(recovery.folder("timelines", 0, settings))
    assert recovery.inspect(recovery.folder("timelines", 0, settings)) is None
    assert recovery.inspect(recovery.folder("timelines-x", 0, settings)) is not None


def test_a_store_that_somebody_holds_is_refused(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    with (
        recovery.held(recovery.folder("cards", 1, settings), "cards"),
        pytest.raises(ConfigurationError, match="runs already"),
        recovery.all_held("cards", settings),
    ):
        pass


STANDING = Standing("cdc.posts", 2, 10, Commit(40, "0/1"), 50)


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("earliest", "from 40 back to 10, 30 records are read again"),
        ("latest", "from 40 on to 50, 10 records are skipped"),
        ("45", "from 40 on to 45, 5 records are skipped"),
        ("40", "stays at 40"),
    ],
)
def test_a_reset_says_what_is_read_again_and_what_is_skipped(to: str, says: str) -> None:
    [move] = plan("timelines", to, [STANDING], Settings())
    assert describe(move) == f"cdc.posts [2]: {says}"


def test_without_a_commit_a_flow_goes_on_from_the_oldest_record() -> None:
    assert describe(Move(Standing("cdc.posts", 2, 10, None, 50), 10)).endswith("stays at 10")


@pytest.mark.parametrize(("to", "why"), [("9", "10 to 50, not 9"), ("51", "not 51"), ("yesterday", "no place")])
def test_a_place_that_is_none_is_refused(to: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        plan("timelines", to, [STANDING], Settings())
