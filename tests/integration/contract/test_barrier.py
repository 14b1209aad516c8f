"""The barrier and the watermark, on the whole running system."""

import contextlib
import os
import signal
import uuid

import pytest

from connectors.barrier import Barrier
from connectors.watermark import Watermark
from fanline.database import connect
from fanline.errors import BarrierTimeout
from tests.conftest import Stack
from tests.integration.contract.valkey import wait_until

NEW_USER = "INSERT INTO users (id, username) VALUES (%s, %s)"
NOW_MS = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"


def commit_a_user(stack: Stack) -> int:
    """A row that the flow `cards` reads; the database's time in ms after its commit."""
    with connect(stack.settings, autocommit=True) as connection:
        user = uuid.uuid4()
        connection.execute(NEW_USER, (user, f"u{user.hex[:16]}"))
        row = connection.execute(NOW_MS).fetchone()
    assert row is not None
    return int(row[0])


def test_the_barrier_waits_for_a_flow_that_stands_still_and_passes_when_it_goes_on(system: Stack) -> None:
    with Barrier(system.settings) as barrier:
        barrier.wait(60)
        stopped = system.kill("cards", signal.SIGSTOP)
        try:
            commit_a_user(system)
            with pytest.raises(BarrierTimeout, match=r"fanline-cards lacks \d+ records of cdc\.users"):
                barrier.wait(1)
        finally:
            system_continue(stopped)
        assert barrier.wait(60) < 60


def test_the_watermark_passes_a_commit_only_after_the_flows_have_applied_it(system: Stack) -> None:
    with contextlib.closing(Watermark(system.settings)) as watermark, Barrier(system.settings) as barrier:
        barrier.wait(60)
        stopped = system.kill("cards", signal.SIGSTOP)
        try:
            written_ms = commit_a_user(system)
            with pytest.raises(BarrierTimeout):
                barrier.wait(1)
            assert watermark.poll() < written_ms
        finally:
            system_continue(stopped)
        wait_until(lambda: watermark.poll() >= written_ms, "the watermark has passed the commit", 60)


def system_continue(pid: int) -> None:
    """Let a stopped process go on."""
    os.kill(pid, signal.SIGCONT)
