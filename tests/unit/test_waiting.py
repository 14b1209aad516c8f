"""Waiting for a server that is away: what is said meanwhile, and how a sink that has failed ends."""

import subprocess
import sys
import threading
import time

import psycopg
import pytest
import redis
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from connectors import flow_metrics, lifecycle, waiting
from connectors.record_decoder import patiently
from connectors.waiting import Waiting, dependency_of
from fanline.cli_dataflows import table
from fanline.errors import DependencyUnavailable

REDIS_AWAY = DependencyUnavailable("Redis at localhost does not answer.", "redis")


@pytest.fixture(autouse=True)
def flow():
    lifecycle.reset("cards")
    yield
    lifecycle.reset()


def said() -> dict[str, float]:
    """What the process says that it waits for, as others read it."""
    return flow_metrics.figures(text_string_to_metric_families(generate_latest(REGISTRY).decode()), 0.0).waits_for


def test_what_is_waited_for_is_said_for_as_long_as_it_is_waited_for():
    calls = 0

    def attempt() -> str:
        nonlocal calls
        calls += 1
        assert 2.9 < said()["redis"] < 10
        if calls < 3:
            raise REDIS_AWAY
        return "done"

    part = Waiting("sink")
    part.note(REDIS_AWAY, since=time.monotonic() - 3)
    assert part.patiently(attempt) == "done"
    assert said() == {}


def test_the_part_that_has_waited_longest_counts_and_another_goes_on_waiting():
    one, two = Waiting("reader"), Waiting("writer")
    now = time.monotonic()
    one.note(REDIS_AWAY, since=now - 60)
    two.note(REDIS_AWAY, since=now - 20)
    assert said()["redis"] >= 59
    one.passed()
    assert 19 < said()["redis"] < 59
    two.passed()
    assert said() == {}


def test_a_part_that_finds_another_server_away_waits_for_that_one():
    part = Waiting("sink")
    part.note(REDIS_AWAY, since=time.monotonic() - 5)
    part.note(DependencyUnavailable("gone", "database"), since=time.monotonic() - 1)
    assert set(said()) == {"database"}
    part.passed()


def test_the_decoder_says_that_it_waits_for_the_registry():
    away, seen = threading.Event(), []

    def decode(value: bytes) -> str:
        if not away.is_set():
            raise DependencyUnavailable("The schema registry does not answer.", "registry")
        return value.decode()

    thread = threading.Thread(target=lambda: seen.append(patiently(decode, b"record")))
    thread.start()
    deadline = time.monotonic() + 10
    while "registry" not in said():
        assert time.monotonic() < deadline
    away.set()
    thread.join()
    assert seen == ["record"]
    assert said() == {}


@pytest.mark.parametrize(
    ("error", "dependency"),
    [
        (REDIS_AWAY, "redis"),
        (psycopg.OperationalError("server closed the connection"), "database"),
        (redis.ConnectionError("refused"), "redis"),
        (DependencyUnavailable("something"), "unknown"),
    ],
    ids=str,
)
def test_an_error_tells_what_is_away(error, dependency):
    assert dependency_of(error) == dependency


def test_a_process_that_is_asked_to_stop_gives_up_and_says_why_in_one_sentence(monkeypatch):
    monkeypatch.setattr(waiting, "STOPPING_SECONDS", 0.1)
    lifecycle.request_stop()
    outer, inner = Waiting("sink"), Waiting("reader")

    def attempt() -> None:
        raise REDIS_AWAY

    with pytest.raises(DependencyUnavailable) as given_up:
        outer.patiently(lambda: inner.patiently(attempt))
    assert str(given_up.value) == "Redis at localhost does not answer; what is not written will be read again."
    assert given_up.value.dependency == "redis"
    assert said() == {}


def test_the_list_of_dataflows_has_a_column_for_it():
    entry = {
        "name": "cards", "state": "running", "instance": 0, "instances": 1, "pid": 1, "restarts": 0, "rss_bytes": 0,
        "records_per_second": 0.0, "lag_seconds": 0.0, "behind_records": 7, "waits_for": {"redis": 12.4},
    }  # fmt: skip
    shown = table([entry])
    assert shown.columns[-1].header == "waits for"
    assert list(shown.columns[-1].cells) == ["redis, 12 s"]


FAILING = '''
import sys
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource
from dataflows.run import run_flow
from fanline.errors import FanlineError
from fanline.settings import get_settings
from sinks.single_part import SinglePartSink, SinglePartWriter, output

class Refused(FanlineError):
    """The target refuses."""

class Part(SinglePartWriter):
    def write_batch(self, values):
        if "write" in sys.argv[1]:
            raise Refused("refused in write")
    def snapshot(self):
        if "snapshot" in sys.argv[1]:
            raise Refused("refused in snapshot")
    def drain(self):
        if "drain" in sys.argv[1]:
            raise Refused("refused in drain")
    def release(self):
        print("released", flush=True)

class Sink(SinglePartSink):
    def build_part(self, step_id, for_part, resume_state):
        return Part()

def build():
    flow = Dataflow("failing")
    output("sink", op.input("source", flow, TestingSource([1, 2, 3], 1)), Sink())
    return flow

try:
    run_flow("failing", build, get_settings())
except Refused as error:
    sys.exit(str(error))
'''


@pytest.mark.parametrize(
    ("places", "heard"),
    [
        ("write", "refused in write"),
        ("write-drain", "refused in write"),
        ("snapshot-drain", "refused in snapshot"),
        ("drain", "refused in drain"),
    ],
)
def test_a_sink_that_fails_ends_the_flow_with_its_first_error_and_no_abort(tmp_path, places, heard):
    done = subprocess.run(
        [sys.executable, "-c", FAILING, places],
        env={"FANLINE_STATE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == heard
    assert "released" in done.stdout
