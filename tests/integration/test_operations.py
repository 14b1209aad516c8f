"""The operator's commands on the running system: dead letters, lag, instances and offsets."""

import json
import os
import shutil
import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer

from connectors import moves, recovery
from connectors.barrier import Barrier
from connectors.flows import FLOWS
from connectors.letter_log import Resolver, read_ledger
from connectors.letters import Letter
from fanline import database
from fanline.cli import fanline
from sinks.parquet_query import open_archive, query
from sinks.parquet_store import open_store
from tests.conftest import Stack
from tests.integration.contract.valkey import wait_until

FLOW = "followers"


@pytest.fixture
def person(system: Stack) -> Iterator[uuid.UUID]:
    """Somebody, gone afterwards."""
    made = uuid.uuid4()
    with database.connect(system.settings, autocommit=True) as connection:
        connection.execute("INSERT INTO users (id, username) VALUES (%s, %s)", [made, f"ops_{made.hex[:12]}"])
        yield made
        connection.execute("DELETE FROM users WHERE id = %s", [made])


def get_followed(system: Stack, person: uuid.UUID, by: int) -> None:
    """So many new people follow somebody."""
    with database.connect(system.settings, autocommit=True) as connection:
        for _ in range(by):
            follower = uuid.uuid4()
            name = f"ops_{follower.hex[:12]}"
            connection.execute("INSERT INTO users (id, username) VALUES (%s, %s)", [follower, name])
            connection.execute("INSERT INTO follows VALUES (%s, %s)", [follower, person])


def until_applied(system: Stack) -> None:
    with Barrier(system.settings, [FLOW]) as barrier:
        barrier.wait(60)


def answer(*arguments: str) -> Any:
    """What a command says as JSON, asked without the detour of a process."""
    result = CliRunner().invoke(fanline, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def is_right(system: Stack, person: uuid.UUID) -> bool:
    """Whether the followers of somebody equal SQL."""
    audited = json.loads(system.fanline("audit", "--prefix", f"ops_{person.hex[:12]}", "--json").stdout)["followers"]
    return bool(audited["equal"] == audited["checked"] == 1)


# Dead letters.


def poison(system: Stack, *values: bytes) -> str:
    """Puts records that are no changes into `cdc.mutes`; the key that they have."""
    key = uuid.uuid4().hex
    producer = Producer({"bootstrap.servers": f"{system.settings.host}:{system.settings.kafka_port}"})
    for value in values:
        producer.produce("cdc.mutes", value, key.encode(), headers=[("origin", b"test")])
    assert producer.flush(10) == 0
    return key


@pytest.fixture
def letters(system: Stack) -> Iterator[list[Letter]]:
    """Two letters of the flow `cards`; none is open before and afterwards."""
    Resolver("cards", system.settings).drop(read_ledger("cards", system.settings).open())
    poison(system, b"\x01 no framing", b"\x00\x7f\xff\xff\xf0 no schema")
    wait_until(lambda: len(read_ledger("cards", system.settings).open()) == 2, "both are rejected")
    yield list(read_ledger("cards", system.settings).open())
    Resolver("cards", system.settings).drop(read_ledger("cards", system.settings).open())


def test_letters_are_counted_by_reason_and_shown_with_what_is_in_them(system: Stack, letters: list[Letter]) -> None:
    found = answer("dlq", "list")
    assert found["cards"]["open"] == 2
    assert {reason["count"] for reason in found["cards"]["reasons"]} == {1}
    assert set(found) == set(FLOWS)
    shown = answer("dlq", "show", "cards", "--reason", "NO SCHEMA")
    assert shown["topic"] == "cdc.mutes"
    assert shown["headers"] == {"origin": "test"}
    assert shown["payload"].startswith("0x007ffffff0")
    assert "origin: test" in system.fanline("dlq", "show", "cards").stdout


def test_what_is_still_bad_comes_back_from_a_replay_as_a_new_letter(system: Stack, letters: list[Letter]) -> None:
    done = system.fanline("dlq", "replay", "cards", "--offsets", str(letters[0].offset), check=False)
    assert (done.returncode, done.stdout.splitlines()) == (
        1,
        ["1 sent back to cards.", "0 taken, 1 rejected again."],
    )
    again = {letter.origin: letter for letter in read_ledger("cards", system.settings).open()}
    assert set(again) == {letter.origin for letter in letters}
    assert [again[letter.origin].replays for letter in letters] == [1, 0]


def test_dropping_asks_first_and_then_drops_what_was_chosen(system: Stack, letters: list[Letter]) -> None:
    assert system.fanline("dlq", "drop", "cards", check=False).returncode == 130
    assert len(read_ledger("cards", system.settings).open()) == 2
    assert "1 letters" in system.fanline("dlq", "drop", "cards", "--reason", "schema", "--yes").stdout
    assert [letter.offset for letter in read_ledger("cards", system.settings).open()] == [letters[0].offset]


# Lag.


def test_lag_tells_what_a_flow_that_stands_still_has_not_applied(system: Stack, person: uuid.UUID) -> None:
    until_applied(system)
    stopped = system.kill(FLOW, signal.SIGSTOP)
    try:
        get_followed(system, person, 5)
        seen: list[dict[str, Any]] = []

        def all_behind() -> bool:
            seen[:] = [each for each in answer("lag", FLOW)["flows"] if each["records"]]
            behind = Counter(each["topic"] for each in seen for _ in range(each["records"]))
            return behind == {"cdc.users": 5, "cdc.follows": 5}

        wait_until(all_behind, "all five and their follows are behind", 30)
        assert all(0 < each["seconds"] < 60 for each in seen)
        assert all(each["end"] - each["committed"] == each["records"] for each in seen)
    finally:
        os.kill(stopped, signal.SIGCONT)
    until_applied(system)
    report = answer("lag", FLOW)
    assert not any(each["records"] or each["seconds"] for each in report["flows"])
    connectors = {each["name"]: each for each in report["connectors"]}
    for name in ("fanline-cdc", "fanline-outbox"):
        assert connectors[name]["behind_bytes"] >= 0
        assert connectors[name]["state"] == "RUNNING"
    assert "up to date" in system.fanline("lag", FLOW, "--partitions").stdout


# Instances and offsets.


def followers(system: Stack, person: uuid.UUID) -> int:
    """How many follow somebody."""
    with database.connect(system.settings) as connection:
        row: Any = connection.execute("SELECT count(*) FROM follows WHERE followee_id = %s", [person]).fetchone()
    return int(row[0])


def instances() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer("dataflows", "list", "--seconds", "0.1")["dataflows"]
    return [each for each in found if each["flow"] == FLOW]


def test_a_flow_is_scaled_while_people_write_and_nothing_is_lost_or_read_twice(
    system: Stack, person: uuid.UUID
) -> None:
    get_followed(system, person, 5)
    assert "has 2 instances now" in system.fanline("dataflows", "scale", FLOW, "2").stdout
    try:
        assert [(each["state"], each["instance"], each["instances"]) for each in instances()] == [
            ("running", 0, 2),
            ("running", 1, 2),
        ]
        assert {"followers", "followers-1"} <= {each["name"] for each in system.status()["dataflows"]}
        get_followed(system, person, 5)
        until_applied(system)
        found = {each.partition: each.commit for each in moves.standings(FLOW, system.settings) if each.topic[0] == "c"}
        assert {partition: commit.by for partition, commit in found.items() if commit and commit.by} == {
            partition: f"{partition % 2}/2" for partition in found
        }
        refused = system.fanline("dataflows", "scale", FLOW, "99", check=False)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
        assert "at most" in refused.stderr
    finally:
        system.fanline("dataflows", "scale", FLOW, "1")
    [only] = instances()
    assert (only["name"], only["state"]) == (FLOW, "running")
    assert "already" in system.fanline("dataflows", "scale", FLOW, "1").stdout
    until_applied(system)
    assert followers(system, person) == 10
    assert is_right(system, person)


def test_a_reset_says_what_it_does_and_is_refused_while_the_flow_runs(system: Stack) -> None:
    until_applied(system)
    before = moves.standings(FLOW, system.settings)
    refused = system.fanline("offsets", "reset", FLOW, "--to", "earliest", "--yes", check=False)
    assert refused.returncode == 2
    assert "runs; nothing was changed" in refused.stderr
    assert "are read again" in refused.stdout
    for now, then in zip(moves.standings(FLOW, system.settings), before, strict=True):
        assert now.next >= then.next
        assert now.commit is None or now.commit.by == "0/1"


def test_a_stopped_flow_is_reset_and_reads_everything_again_to_the_same_result(
    system: Stack, person: uuid.UUID
) -> None:
    get_followed(system, person, 3)
    until_applied(system)
    system.fanline("dataflows", "stop", FLOW)
    try:
        assert [each["state"] for each in instances()] == ["stopped"]
        planned = system.fanline("offsets", "reset", FLOW, "--to", "latest", "--yes").stdout
        assert "In all 0 records are read again and " in planned
        system.fanline("offsets", "reset", FLOW, "--to", "earliest", "--yes")
        found = moves.standings(FLOW, system.settings)
        assert all(each.commit is not None and each.commit.by == "" for each in found)
        assert all(each.next == each.earliest for each in found)
        assert all(recovery.inspect(store) is None for store in recovery.folders(FLOW, system.settings))
        assert "no recovery store" in system.fanline("offsets", "recovery", FLOW).stdout
        assert "an operator" in system.fanline("offsets", "show", FLOW).stdout
    finally:
        system.fanline("dataflows", "start", FLOW)
    until_applied(system)
    assert is_right(system, person)
    wait_until(lambda: bool(answer("offsets", "recovery", FLOW)["stores"]), "the flow has a store again")


def archived(system: Stack, day: date) -> Counter[tuple[Any, ...]]:
    """The records of a day in the archive, by topic, place and event."""
    store = open_store(system.settings)
    events = open_archive(store, every_record=True)
    columns = "kafka_partition, kafka_offset, event_id"
    return Counter(
        (topic, *row.values())
        for topic in store.topics()
        for row in query(events, f"SELECT {columns} FROM \"{topic}\" WHERE day = '{day}'").to_pylist()
    )


def test_a_day_of_the_archive_whose_files_are_gone_is_written_again_from_the_log(system: Stack) -> None:
    system.fanline("load", "--people", "5", "--follows", "10", "--posts", "20", "--rate", "40", "--name", "kept")
    system.fanline("dataflows", "stop", "archive")
    try:
        today = datetime.now(UTC).date()
        before, passed = archived(system, today), moves.standings("archive", system.settings)
        assert sum(before.values()) > 0
        for folder in (system.settings.state_dir / "archive").glob(f"*/day={today}"):
            shutil.rmtree(folder)
        assert not archived(system, today)
        system.fanline("offsets", "reset", "archive", "--to", f"{today}T00:00:00Z", "--yes")
        hasty = Stack(system.settings, system.environment | {"FANLINE_ARCHIVE_FILE_SECONDS": "0.5"})
        hasty.fanline("dataflows", "start", "archive")
        wait_until(
            lambda: all(
                now.next >= then.next
                for now, then in zip(moves.standings("archive", system.settings), passed, strict=True)
            ),
            "the flow has come to where it was",
            60,
        )
    finally:
        system.fanline("dataflows", "restart", "archive")
    after = archived(system, today)
    assert after & before == before
    assert set(after.values()) == {1}


def test_an_unknown_topic_or_a_place_that_is_none_is_refused_in_one_sentence(system: Stack) -> None:
    for arguments in (("--to", "earliest", "--topic", "cdc.posts"), ("--to", "soon"), ("--to", "999999999")):
        refused = system.fanline("offsets", "reset", FLOW, "--yes", *arguments, check=False)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused.stderr
