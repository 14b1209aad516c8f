"""The local stack on real servers: status, crashes, busy ports, Ctrl-C, and what a stop and a start keep."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
import requests

from fanline.settings import Settings
from stack import daemon
from stack.layout import Layout
from tests.conftest import CHECKOUT, Stack
from tests.waiting import wait_for

SERVERS = ("postgres", "valkey", "kafka", "connect", "registry", "opensearch")


@pytest.fixture
def small(tmp_path: Path, stack: Stack) -> Iterator[Stack]:
    """A further stack of its own in an empty folder, on free ports, with nothing started; only cheap parts are used."""
    environment = stack.environment | {"FANLINE_STATE_DIR": str(tmp_path / "state")}
    environment["FANLINE_SERVERS_DIR"] = str(Layout(stack.settings).servers.parent)
    sockets = {
        name: socket.create_server(("127.0.0.1", 0)) for name in ("POSTGRES", "REDIS", "KAFKA", "KAFKA_CONTROLLER")
    }
    environment |= {f"FANLINE_{name}_PORT": str(held.getsockname()[1]) for name, held in sockets.items()}
    for held in sockets.values():
        held.close()
    settings = Settings(
        state_dir=tmp_path / "state",
        postgres_port=int(environment["FANLINE_POSTGRES_PORT"]),
        redis_port=int(environment["FANLINE_REDIS_PORT"]),
        kafka_port=int(environment["FANLINE_KAFKA_PORT"]),
    )
    yield Stack(settings, environment)
    Stack(settings, environment).fanline("down")


def processes_of(stack: Stack) -> list[psutil.Process]:
    """Every process that names the stack's state folder in its command."""
    folder = str(Layout(stack.settings).state)
    found = []
    for process in psutil.process_iter():
        try:
            if any(folder in word for word in process.cmdline()) and process.pid != os.getpid():
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_status_gives_name_state_address_process_memory_and_log_of_each_server(stack: Stack) -> None:
    servers = json.loads(stack.fanline("status", "--json", check=False).stdout)["servers"]
    assert [server["name"] for server in servers] == list(SERVERS)
    for server in servers:
        assert server["state"] == "running", server
        assert server["url"]
        assert psutil.pid_exists(server["pid"])
        assert server["rss_bytes"] > 1_000_000
        assert Path(server["log"]).exists()


def test_starting_what_runs_changes_nothing(stack: Stack) -> None:
    before = [server["pid"] for server in stack.status()["servers"]]
    stack.up("servers")
    assert [server["pid"] for server in stack.status()["servers"]] == before


def test_connect_offers_debezium_and_the_avro_converter(stack: Stack) -> None:
    url = f"http://{stack.settings.host}:{stack.settings.connect_port}/connector-plugins"
    plugins = {plugin["class"] for plugin in requests.get(url, params={"connectorsOnly": "false"}, timeout=10).json()}
    assert {
        "io.debezium.connector.postgresql.PostgresConnector",
        "io.debezium.connector.cockroachdb.CockroachDBConnector",
        "io.apicurio.registry.utils.converter.AvroConverter",
        "io.debezium.transforms.outbox.EventRouter",
    } <= plugins


def test_postgres_does_not_run_with_the_rights_of_root(stack: Stack) -> None:
    with psycopg.connect(
        host="127.0.0.1", port=stack.settings.postgres_port, user="postgres", dbname="fanline"
    ) as database:
        row = database.execute("select pg_read_file('/proc/self/status')").fetchone()
    assert row is not None
    rights = next(line.split()[1] for line in row[0].splitlines() if line.startswith("CapEff"))
    assert int(rights, 16) == 0


def test_postgres_runs_for_root_also_without_user_namespaces(small: Stack) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has to give up its rights")
    code = (
        "from stack import unprivileged\n"
        "unprivileged.namespaces_work = lambda: False\n"
        "from fanline import cli\n"
        "import sys; sys.argv = ['fanline', 'up', '--only', 'postgres']; cli.main()"
    )
    try:
        subprocess.run([sys.executable, "-c", code], env=small.environment, cwd=CHECKOUT, check=True, timeout=120)
        record = daemon.read_record(Layout(small.settings), "postgres")
        assert record is not None
        server = psutil.Process(record.pid)
        assert server.username() == "nobody"
        with psycopg.connect(host="127.0.0.1", port=small.settings.postgres_port, user="postgres", dbname="fanline"):
            pass
        small.fanline("down")
        data = Layout(small.settings).data("postgres")
        assert data.is_symlink()  # pytest's folders are closed to others, so the data went elsewhere
        small.up("postgres")  # what was made as nobody goes on as nobody
        assert psutil.Process(small.pid("postgres")).username() == "nobody"
    finally:
        small.fanline("down")
        shutil.rmtree(Layout(small.settings).data("postgres").resolve().parent)


def test_a_crashed_server_is_named_with_its_log_and_starts_again(small: Stack) -> None:
    small.up("valkey")
    small.kill("valkey")
    wait_for(lambda: small.part("valkey")["state"] == "crashed")
    shown = small.fanline("status", check=False)
    assert shown.returncode == 1
    assert "valkey crashed" in shown.stdout
    assert any("Ready to accept connections" in line for line in small.part("valkey")["last_lines"])
    small.up("valkey")
    assert small.part("valkey")["state"] == "running"


def test_a_server_that_ends_while_it_starts_is_named_with_the_last_lines_of_its_log(small: Stack) -> None:
    data = Layout(small.settings).data("valkey")
    data.mkdir(parents=True)
    (data / "dump.rdb").write_bytes(b"no snapshot")
    failed = small.fanline("up", "--only", "valkey", check=False)
    assert failed.returncode == 1
    assert "valkey ended while it was needed" in failed.stderr
    assert "Fatal error loading the DB" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_busy_port_is_named_with_its_owner_and_nothing_is_started(small: Stack) -> None:
    with socket.create_server(("127.0.0.1", small.settings.redis_port)):
        failed = small.fanline("up", "--only", "valkey,postgres", check=False)
    assert failed.returncode == 1
    assert f"port {small.settings.redis_port} is in use by" in failed.stderr
    assert f"(process {os.getpid()})" in failed.stderr
    assert "FANLINE_REDIS_PORT" in failed.stderr
    assert processes_of(small) == []


@pytest.mark.parametrize("seconds", [0.0, 0.7, 1.7, 3.7])
def test_ctrl_c_at_any_moment_leaves_nothing_behind(small: Stack, seconds: float) -> None:
    command = [sys.executable, "-m", "fanline.cli", "up", "--only", "postgres,valkey,kafka"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=small.environment, cwd=CHECKOUT, text=True, **pipes) as up:
        assert up.stdout is not None
        up.stdout.readline()  # Python itself has started
        time.sleep(seconds)  # the moment is the point of the test: there is no condition to wait for
        up.send_signal(signal.SIGINT)
        _, said = up.communicate(timeout=60)
    if up.returncode != 0:  # it was interrupted before it had finished
        assert up.returncode == 130, said
        assert "Traceback" not in said
        assert processes_of(small) == []
        assert [server["pid"] for server in small.status()["servers"]] == [None] * len(SERVERS)
    assert [child for child in processes_of(small) if "initdb" in child.name()] == []


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.06, 0.1, 0.2])
def test_ctrl_c_as_all_gets_ready_keeps_all_or_stops_all(small: Stack, seconds: float) -> None:
    command = [sys.executable, "-m", "fanline.cli", "up", "--only", "valkey"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=small.environment, cwd=CHECKOUT, text=True, **pipes) as up:
        assert up.stdout is not None
        assert any("valkey: ready" in line for line in iter(up.stdout.readline, ""))
        time.sleep(seconds)  # from the last look at the start to the end of the interpreter
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=60)
    runs = small.part("valkey")["pid"] is not None
    assert (up.returncode, runs) in ((0, True), (130, False))


def test_ctrl_c_keeps_what_ran_before(small: Stack) -> None:
    small.up("valkey")
    pid = small.pid("valkey")
    command = [sys.executable, "-m", "fanline.cli", "up", "--only", "valkey,kafka"]
    with subprocess.Popen(command, env=small.environment, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        assert any("kafka: starting" in line for line in iter(up.stdout.readline, ""))
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=60)
    assert up.returncode == 130
    assert small.pid("valkey") == pid
    assert small.part("kafka")["pid"] is None


def test_a_clean_stop_keeps_the_data_and_a_crash_empties_valkey(small: Stack) -> None:
    small.up("postgres,valkey")
    client = redis.Redis(port=small.settings.redis_port)
    client.set("kept", "1")
    with psycopg.connect(
        host="127.0.0.1", port=small.settings.postgres_port, user="postgres", dbname="fanline"
    ) as database:
        database.execute("create table kept as select 1 as one")
    small.fanline("down")
    assert processes_of(small) == []
    small.up("postgres,valkey")
    assert client.get("kept") == b"1"
    with psycopg.connect(
        host="127.0.0.1", port=small.settings.postgres_port, user="postgres", dbname="fanline"
    ) as database:
        assert database.execute("select one from kept").fetchone() == (1,)
    small.kill("valkey")
    wait_for(lambda: small.part("valkey")["state"] == "crashed")
    small.up("valkey")
    assert client.get("kept") is None  # never an older state than the one that the flows recorded
    client.close()


def test_down_on_a_stopped_stack_is_quiet_and_well(small: Stack) -> None:
    assert small.fanline("down").stdout == ""
    assert json.loads(small.fanline("status", "--json", check=False).stdout)["servers"][0]["state"] == "stopped"
