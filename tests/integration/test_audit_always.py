"""The audit that always runs, on the whole system: what is damaged by hand is found, explained and repaired."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest
import requests
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from audit.always import AlwaysAudit
from audit.causes import Causes
from audit.completeness import Completeness
from audit.model import Model
from audit.models import always_models
from audit.stores import Stores
from connectors.barrier import Barrier
from readmodels.aggregates import INSTANCE, MINUTE, Series, floor_to
from readmodels.cards import ACCOUNT_CARD, STATUS_CARD
from readmodels.effects import Query, command
from readmodels.followers import facts_key
from readmodels.recents import recent_key
from readmodels.timelines import timeline_key
from tests.conftest import CHECKOUT, Stack

NAME = "watched"


@pytest.fixture(scope="module")
def loaded(system: Stack) -> Stack:
    system.fanline("load", "--people", "30", "--follows", "200", "--posts", "60", "--rate", "40", "--name", NAME)
    # Reading over REST warms the timelines; who has just written is answered from SQL at first.
    for _ in range(6):
        done = system.fanline("audit", "--json", "--prefix", f"{NAME}_")
        if json.loads(done.stdout)["timelines_redis"]["checked"] >= 20:
            break
    return system


@pytest.fixture
def stores(loaded: Stack) -> Iterator[Stores]:
    stores = Stores(loaded.settings)
    stores.load_functions()
    yield stores
    stores.close()


@pytest.fixture
def always(loaded: Stack, stores: Stores) -> Iterator[AlwaysAudit]:
    settings = loaded.settings.model_copy(update={"audit_window_seconds": 0.001, "audit_repair": True})
    with Barrier(settings) as barrier:
        completeness = Completeness(settings.audit_window_seconds)
        yield AlwaysAudit(
            stores, always_models(settings), lambda: barrier.wait(60), Causes(settings), settings, completeness
        )


def model(always: AlwaysAudit, name: str) -> Model:
    return next(each for each in always._models if each.name == name)


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def somebody(stores: Stores) -> UUID:
    """Somebody whose warm timeline has some posts, and who has followers and posts."""
    rows = stores.rows(
        Query(
            "SELECT u.id FROM users u WHERE u.username LIKE %(like)s"
            " AND EXISTS (SELECT 1 FROM posts p WHERE p.author_id = u.id)"
            " AND EXISTS (SELECT 1 FROM follows f WHERE f.followee_id = u.id)",
            {"like": f"{NAME}\\_%"},
        )
    )
    for row in rows:
        if stores.redis([command(timeline_key(row["id"]), b"LLEN")])[0] > 3:
            return UUID(str(row["id"]))
    raise AssertionError("no timeline has posts")


def lose_an_entry(stores: Stores, person: UUID) -> None:
    key = timeline_key(person)
    entry = stores.redis([command(key, b"LRANGE", -1, -1)])[0][0]
    stores.redis([command(key, b"LREM", 0, entry)])


def lose_recents(stores: Stores, person: UUID) -> None:
    stores.redis([command(recent_key(person), b"LTRIM", 0, 0)])


def lose_and_add_followers(stores: Stores, person: UUID) -> None:
    key = facts_key(person) + b":0"
    chunk = stores.redis([command(key, b"GET")])[0]
    stores.redis([command(key, b"SET", chunk[16:] + bytes(16) + chunk[16:32])])


def spoil_card(stores: Stores, person: UUID) -> None:
    # With a token that claims to be newer than any.
    stores.redis([command(ACCOUNT_CARD.key(person), b"SET", b"\xff" * 8 + b"nonsense")])


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("timelines_redis", lose_an_entry),
        ("timelines", lose_an_entry),
        ("recents", lose_recents),
        ("followers", lose_and_add_followers),
        ("account_cards", spoil_card),
    ],
)
def test_damage_by_hand_is_counted_explained_and_repaired(
    always: AlwaysAudit, stores: Stores, name: str, damage: Callable[[Stores, UUID], None]
) -> None:
    person, watched = somebody(stores), model(always, name)
    assert always.look(watched, [person]) == {}
    assert metric("fanline_completeness_ratio", model=name) == 1.0
    repaired = metric("fanline_drift_repairs_total", model=name, outcome="repaired")
    missing = metric("fanline_drift_total", model=name, kind="missing")
    damage(stores, person)
    with capture_logs() as logs:
        drifting = always.look(watched, [person])
    assert list(drifting) == [person]
    assert metric("fanline_completeness_ratio", model=name) == 0.0
    assert metric("fanline_staleness_seconds", model=name) > 0
    assert metric("fanline_drift_total", model=name, kind="missing") == missing + drifting[person].missing > missing
    assert metric("fanline_drift_repairs_total", model=name, outcome="repaired") == repaired + 1
    told = next(entry for entry in logs if entry["event"] == "drift")
    assert (told["model"], told["subject"]) == (name, str(person))
    assert told["cause"]
    assert told["flow_started_seconds_ago"]
    assert always.look(watched, [person]) == {}
    assert metric("fanline_completeness_ratio", model=name) == 1.0
    assert metric("fanline_staleness_seconds", model=name) == 0.0


def test_followers_are_repaired_to_exactly_those_of_the_database(always: AlwaysAudit, stores: Stores) -> None:
    person, watched = somebody(stores), model(always, "followers")
    lose_and_add_followers(stores, person)
    always.look(watched, [person])
    (row,) = stores.rows(Query("SELECT count(*) AS n FROM follows WHERE followee_id = %(id)s", {"id": person}))
    assert stores.redis([command(facts_key(person), b"HGET", b"followers")]) == [b"%d" % row["n"]]


def test_a_time_series_that_was_changed_by_hand_is_repaired(always: AlwaysAudit, stores: Stores) -> None:
    watched = model(always, "aggregates")
    series = Series(INSTANCE, MINUTE, floor_to(int(time.time()), MINUTE.period))
    long_ago = (series.start).to_bytes(4)  # midnight: nobody writes to that minute any more
    stores.redis([command(series.key(), b"HSET", long_ago, b"\xff" * 8 + (7).to_bytes(4) * 6)])
    drifting = always.look(watched, [series])
    assert drifting[series].extra > 0
    assert always.look(watched, [series]) == {}


def test_a_document_of_a_post_that_is_gone_is_no_document(always: AlwaysAudit, stores: Stores) -> None:
    gone = 1 << 40
    stores.redis([command(STATUS_CARD.key(gone), b"SET", bytes(8) + b"something")])
    watched = model(always, "status_cards")
    assert always.look(watched, [gone])[gone].extra == 1
    assert stores.redis([command(STATUS_CARD.key(gone), b"GET")])[0][8:] == b""


def test_what_changes_between_two_looks_is_no_drift(always: AlwaysAudit, stores: Stores) -> None:
    """A model that is never equal, over a row that changes between any two looks."""
    person = somebody(stores)
    watched = model(always, "account_cards")
    looks = 0

    def check(stores: Stores, subjects: object) -> dict[UUID, object]:
        nonlocal looks
        looks += 1
        stores.rows(Query("SELECT %(look)s::int AS look", {"look": looks}))
        return {person: next(iter(drift.values()))}

    spoil_card(stores, person)
    drift = watched.check(stores, [person])
    moving = Model("moving", watched.subjects, check, watched.repair, watched.flow)  # type: ignore[arg-type]
    assert always.look(moving, [person]) == {}
    watched.repair(stores, [person])


def test_without_leave_to_repair_it_only_counts(loaded: Stack, always: AlwaysAudit, stores: Stores) -> None:
    always._settings = loaded.settings.model_copy(update={"audit_repair": False})
    person, watched = somebody(stores), model(always, "account_cards")
    spoil_card(stores, person)
    assert list(always.look(watched, [person])) == [person]
    assert stores.redis([command(ACCOUNT_CARD.key(person), b"GET")])[0].endswith(b"nonsense")
    watched.repair(stores, [person])
    assert always.look(watched, [person]) == {}


def test_a_round_looks_at_every_read_model_and_finds_nothing(always: AlwaysAudit) -> None:
    always.round()
    looked_at = {each.name for each in always._models if metric("fanline_audited_total", model=each.name)}
    assert {"timelines_redis", "recents", "followers", "account_cards", "status_cards", "aggregates"} <= looked_at


def test_as_a_process_it_serves_its_metrics_and_ends_when_asked(loaded: Stack) -> None:
    port = 19_990
    environment = {**loaded.environment, "FANLINE_METRICS_PORT": str(port), "FANLINE_AUDIT_SECONDS": "0.2"}
    environment["FANLINE_AUDIT_REPAIR"] = "false"
    process = subprocess.Popen(
        [sys.executable, "-m", "fanline.cli", "audit", "--always"],
        env=environment, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while "fanline_completeness_ratio{" not in _metrics(port):
            assert process.poll() is None
            assert time.monotonic() < deadline, "no completeness was told"
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def _metrics(port: int) -> str:
    try:
        return requests.get(f"http://127.0.0.1:{port}/metrics", timeout=2).text
    except requests.ConnectionError:
        return ""
