"""The archive, from records in Kafka to answers of SQL, in a folder and on a real S3 server."""

import re
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import requests

from connectors.flows import dead_letter_topic, metrics_port
from connectors.topics import ensure_topics
from fanline.database import connect
from readmodels.archive import ArchiveFile, current, day_of
from schemas import contracts
from schemas.registry import encoder
from sinks.parquet_compact import Compacted, compact
from sinks.parquet_query import open_archive, query
from sinks.parquet_store import ParquetStore
from tests.conftest import Stack
from tests.integration.contract.child import Plan
from tests.integration.contract.conftest import Bench
from tests.integration.contract.s3_server import ENVIRONMENT, S3Server
from tests.integration.contract.valkey import wait_until

EVENT = "engagement.recorded"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, started once a run; each test has a prefix of its own in its bucket."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def s3_url(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place on the S3 server, with what a client of it needs in the environment."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return s3.url(uuid.uuid4().hex)


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the archive is."""
    if request.param == "folder":
        return (tmp_path / "archive").as_uri()
    return str(request.getfixturevalue("s3_url"))


def events(bench: Bench, count: int, start: int = 0) -> list[bytes]:
    encode = encoder(bench.stack.settings).encode
    example = contracts.load()[EVENT].example
    return [encode(EVENT, example | {"account_id": f"{start + n}", "undone": n % 3 == 0}) for n in range(count)]


def produce(bench: Bench, topic: str, values: list[bytes]) -> None:
    for number, value in enumerate(values):
        bench._produce(topic, value, b"key", partition=number % 4, headers=[("id", str(uuid.uuid4()).encode())])
    assert not bench._producer.flush(20)


def archived_at(url: str) -> dict[str, str]:
    """Settings of a flow whose files are small and soon there."""
    small = {"FANLINE_ARCHIVE_FILE_SECONDS": "0.5", "FANLINE_ARCHIVE_FILE_ROWS": "60"}
    return ENVIRONMENT | small | {"FANLINE_ARCHIVE_URL": url}


def accounts(store: ParquetStore, topic: str) -> list[int]:
    database = open_archive(store)
    found = query(database, f'SELECT account_id::bigint AS n FROM "{topic}" ORDER BY n')["n"]
    return [int(number) for number in found.to_pylist()]


def test_events_are_archived_once_bad_ones_are_dead_letters_and_a_crash_and_a_compaction_cost_nothing(
    bench: Bench, url: str
) -> None:
    ensure_topics(bench.stack.settings)
    topic = bench.topic("event")
    values = events(bench, 1000)
    bad = {7: b"", 300: b"\0\0\0\0\1", 400: values[0][:-3], 401: values[0] + b"x", 900: b"\0\xff\xff\xff\xffabc"}
    produce(bench, topic, [bad.get(number, value) for number, value in enumerate(values)])
    plan = Plan(bench.flow, [topic], "archive")
    settings = archived_at(url)
    flow = bench.start(plan, **settings)
    bench.until_applied(topic)
    store = ParquetStore(url)
    good = [number for number in range(1000) if number not in bad]
    assert accounts(store, topic) == good
    letters = bench.read(dead_letter_topic(bench.flow))
    reasons = [dict(letter.headers())["reason"].decode() for letter in letters]
    assert len(reasons) == len(bad)
    assert all(reason.endswith(".") for reason in reasons), reasons

    # Killed with records in memory, and started again while another run of files is compacted.
    produce(bench, topic, events(bench, 300, start=1000))
    flow.kill()
    merged = compact(store, grace_seconds=0)
    assert merged.merged > merged.written > 0
    flow = bench.start(plan, **settings)
    bench.until_applied(topic)
    assert accounts(store, topic) == [*good, *range(1000, 1300)]
    compact(store, grace_seconds=0)
    assert compact(store, grace_seconds=0).merged == 0
    assert accounts(store, topic) == [*good, *range(1000, 1300)]
    flow.stop()


def test_while_s3_is_away_the_archive_says_that_it_waits_and_then_has_every_event_once(
    bench: Bench, s3: S3Server, s3_url: str
) -> None:
    ensure_topics(bench.stack.settings)
    topic = bench.topic("event")
    flow = bench.start(Plan(bench.flow, [topic], "archive"), **archived_at(s3_url))
    produce(bench, topic, events(bench, 200))
    bench.until_applied(topic)
    s3.stop()
    produce(bench, topic, events(bench, 200, start=200))
    wait_until(lambda: '"waits"' in flow.errors and '"dependency": "archive"' in flow.errors, "the flow says so")
    produce(bench, topic, events(bench, 200, start=400))
    s3.start()
    bench.until_applied(topic)
    assert accounts(ParquetStore(s3_url), topic) == list(range(600))
    flow.stop()


def test_a_store_says_what_is_there(url: str) -> None:
    store = ParquetStore(url)
    assert (store.topics(), store.days("x"), store.files("x")) == ([], [], [])
    file = ArchiveFile("x.y", day_of(0), "00000000", 0, 5, 6)
    table = pa.table({"n": pa.array([1, 2])})
    for _ in range(2):
        store.put(file, table)
    assert (store.topics(), store.days("x.y"), store.files("x.y")) == (["x.y"], [day_of(0)], [file])
    assert (store.rows(file), store.read(file)) == (2, table)
    store.put(ArchiveFile("x.y", day_of(0), "00000000", 0, 7, 7), table)
    assert compact(store, grace_seconds=600) == Compacted(written=1, merged=2)
    assert [store.rows(each) for each in current(store.files("x.y"))] == [4]
    store.delete(file)
    store.delete(file)
    assert file not in store.files("x.y")


def test_an_event_in_the_outbox_is_in_the_archive_when_the_flow_stops(system: Stack) -> None:
    post_id = str(uuid.uuid4().int >> 65)
    event = contracts.load()[EVENT].example | {"post_id": post_id}
    port = metrics_port(system.settings.flows_metrics_port, "archive")
    metrics = f"http://{system.settings.host}:{port}/metrics"

    def read() -> float:
        text = requests.get(metrics, timeout=5).text
        found = re.search(rf'fanline_records_total{{flow="archive",topic="{EVENT}"}} (\S+)', text)
        return float(found[1]) if found else 0.0

    before = read()
    with connect(system.settings) as connection:
        connection.execute(
            "INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES (%s, %s, %s, %s, %s)",
            (uuid.uuid4(), EVENT, post_id, EVENT, encoder(system.settings).encode(EVENT, event)),
        )
    wait_until(lambda: read() > before, "the flow has read the event")
    system.kill("archive", signal.SIGTERM)
    sql = f"SELECT count(*) AS n FROM \"{EVENT}\" WHERE post_id = '{post_id}'"

    def archived() -> bool:
        return system.fanline("archive", "query", sql, "--json").stdout == '{"n": 1}\n'

    try:
        wait_until(archived, "the event is in the archive")
    finally:
        system.up("archive")
