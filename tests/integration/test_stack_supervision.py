"""Dataflows and the API come back by themselves when they are killed."""

import time

import pytest

from tests.integration.conftest import Stack

PARTS = ("followers", "timelines", "cards", "api")


@pytest.mark.parametrize("name", PARTS)
def test_a_killed_part_is_started_again_and_answers(system: Stack, name: str) -> None:
    before = system.part(name)
    killed = system.kill(name)
    deadline = time.monotonic() + 60
    while (part := system.part(name))["state"] != "running" or part["pid"] in (killed, None):
        assert time.monotonic() < deadline, part
    assert part["restarts"] == before["restarts"] + 1
    assert part["last_exit"] == -9


def test_the_whole_system_is_well_and_within_its_memory(system: Stack) -> None:
    report = system.status()
    assert {connector["state"] for connector in report["connectors"]} == {"RUNNING"}
    assert all(part["state"] == "running" for part in [*report["servers"], *report["dataflows"], report["api"]])
    assert report["pss_bytes"] < 2.5 * 2**30
