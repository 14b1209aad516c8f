"""Dataflows and the API come back by themselves when they are killed."""

import json
import subprocess
import time

import pytest

from stack.next_steps import curl_example
from tests.conftest import Stack

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


def test_the_curl_lines_that_up_prints_post_and_read_the_post_back(system: Stack) -> None:
    name = f"alice{time.time_ns() // 1_000_000 % 10**10}"
    url = f"http://{system.settings.host}:{system.settings.api_port}"
    lines = curl_example(url).replace("alice", name)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", lines], capture_output=True, text=True, timeout=60, check=True
    )
    post, end = json.JSONDecoder().raw_decode(done.stdout)
    home = json.loads(done.stdout[end:])
    assert post["account"]["username"] == name
    assert [status["id"] for status in home] == [post["id"]]


def test_the_whole_system_is_well_and_within_its_memory(system: Stack) -> None:
    report = system.status()
    assert {connector["state"] for connector in report["connectors"]} == {"RUNNING"}
    assert all(part["state"] == "running" for part in [*report["servers"], *report["dataflows"], report["api"]])
    assert report["pss_bytes"] < 2.5 * 2**30
