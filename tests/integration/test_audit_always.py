"""The audit that always runs, on the whole system: what is damaged by hand is found, explained and repaired."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from uuid import UUID

import pytest
import requests
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from audit.always import AlwaysAudit
from audit.causes import Causes
from audit.compare import Difference
from audit.completeness import Completeness
from audit.model import Model, Subjects
from audit.models import always_models
from audit.stores import Stores
from connectors.barrier import Barrier
from fanline.settings import Settings
from readmodels.cards import ACCOUNT_CARD, STATUS_CARD
from readmodels.effects import Query, command
from readmodels.followers import facts_key
from tests.conftest import CHECKOUT, Stack
from tests.integration.audit_damages import DAMAGES, NAME, OURS, a_post, ids, lose_and_add_followers, somebody, spoil


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


@pytest.mark.parametrize("name", [each.name for each in always_models(Settings())])
def test_damage_by_hand_is_counted_explained_and_repaired(always: AlwaysAudit, stores: Stores, name: str) -> None:
    of, damage = DAMAGES[name]
    subject, watched = of(stores), model(always, name)
    assert always.look(watched, [subject]) == {}
    assert metric("fanline_completeness_ratio", model=name) == 1.0
    repaired = metric("fanline_drift_repairs_total", model=name, outcome="repaired")
    before = {kind: metric("fanline_drift_total", model=name, kind=kind) for kind in asdict(Difference())}
    damage(stores, subject)
    with capture_logs() as logs:
        drifting = always.look(watched, [subject])
    assert list(drifting) == [subject]
    assert metric("fanline_completeness_ratio", model=name) == 0.0
    assert metric("fanline_staleness_seconds", model=name) > 0
    for kind, number in asdict(drifting[subject]).items():
        assert metric("fanline_drift_total", model=name, kind=kind) == before[kind] + number
    assert metric("fanline_drift_repairs_total", model=name, outcome="repaired") == repaired + 1
    told = next(entry for entry in logs if entry["event"] == "drift")
    assert (told["model"], told["subject"], told["flow"]) == (name, str(subject), watched.flow)
    assert told["cause"]
    assert told["flow_started_seconds_ago"]
    assert always.look(watched, [subject]) == {}
    assert metric("fanline_completeness_ratio", model=name) == 1.0
    assert metric("fanline_staleness_seconds", model=name) == 0.0


def test_followers_are_repaired_to_exactly_those_of_the_database(always: AlwaysAudit, stores: Stores) -> None:
    person, watched = somebody(stores), model(always, "followers")
    lose_and_add_followers(stores, person)
    always.look(watched, [person])
    (row,) = stores.rows(Query("SELECT count(*) AS n FROM follows WHERE followee_id = %(id)s", {"id": person}))
    assert stores.redis([command(facts_key(person), b"HGET", b"followers")]) == [b"%d" % row["n"]]


def test_without_an_index_every_document_is_missing_and_nothing_is_written(stores: Stores, loaded: Stack) -> None:
    person, post = somebody(stores), a_post(stores)
    elsewhere = Stores(loaded.settings.model_copy(update={"search_prefix": "nowhere"}))
    watched = {each.name: each for each in always_models(loaded.settings)}
    try:
        for name, subject in (("search_users", person), ("search_posts", post)):
            assert subject in watched[name].subjects(elsewhere, Subjects([person], [post]))
            assert watched[name].check(elsewhere, [subject]) == {subject: Difference(missing=1)}
            watched[name].repair(elsewhere, [subject])
            assert watched[name].check(elsewhere, [subject]) == {subject: Difference(missing=1)}
    finally:
        elsewhere.close()


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

    spoil(ACCOUNT_CARD)(stores, person)
    drift = watched.check(stores, [person])
    moving = Model("moving", watched.subjects, check, watched.repair, watched.flow)  # type: ignore[arg-type]
    assert always.look(moving, [person]) == {}
    watched.repair(stores, [person])


def test_without_leave_to_repair_it_only_counts(loaded: Stack, always: AlwaysAudit, stores: Stores) -> None:
    always._settings = loaded.settings.model_copy(update={"audit_repair": False})
    person, watched = somebody(stores), model(always, "account_cards")
    spoil(ACCOUNT_CARD)(stores, person)
    assert list(always.look(watched, [person])) == [person]
    assert stores.redis([command(ACCOUNT_CARD.key(person), b"GET")])[0].endswith(b"nonsense")
    watched.repair(stores, [person])
    assert always.look(watched, [person]) == {}


def test_a_round_looks_at_every_read_model_and_finds_nothing(
    loaded: Stack, always: AlwaysAudit, stores: Stores
) -> None:
    for of, _ in DAMAGES.values():
        of(stores)
    # So many that those of this test are among the fresh ones.
    always._settings = loaded.settings.model_copy(update={"audit_sample": 150, "audit_repair": False})
    before = {each.name: metric("fanline_audited_total", model=each.name) for each in always._models}
    with capture_logs() as logs:
        always.round()
    looked_at = {name for name, number in before.items() if metric("fanline_audited_total", model=name) > number}
    assert looked_at == before.keys()
    # Other tests have changed rows of others by SQL, as the API never does.
    ours = {
        str(each) for each in (*ids(stores, OURS), *ids(stores, f"SELECT id FROM posts WHERE author_id IN ({OURS})"))
    }
    assert [entry for entry in logs if entry["event"] == "drift" and entry["subject"] in ours] == []


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
