"""Connectors on a real Kafka Connect: applied, compared, refused, failed, explained."""

import json
import uuid
from contextlib import contextmanager

import psycopg
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from psycopg import sql
from pydantic import SecretStr

from connectors import connect, plan, renewal, slots
from connectors.connect_client import ConnectClient, ConnectorFailed, ConnectorRefused
from connectors.kafka_clients import client_config
from fanline.errors import ConfigurationError, DependencyUnavailable, FanlineError
from fanline.migrations_runner import migrate
from tests.conftest import Stack
from tests.integration.pipeline import open_pipeline, tail


@pytest.fixture(scope="module")
def ready(stack):
    open_pipeline(stack.settings)
    return stack


def admin(settings, database="fanline"):
    return psycopg.connect(
        host=settings.host, port=settings.postgres_port, user="postgres", dbname=database, autocommit=True
    )


def drop_slot(settings, name):
    with admin(settings) as connection:
        for slot, pid in connection.execute(
            "SELECT slot_name, active_pid FROM pg_replication_slots WHERE slot_name = %s", [name]
        ).fetchall():
            if pid:
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
            connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])


@pytest.fixture
def trial(ready, tmp_path):
    """Writes a template of a connector of its own; the connector and its slot are gone afterwards."""
    name = f"trial_{uuid.uuid4().hex[:8]}"
    base = json.loads((plan.TEMPLATES / "outbox.json").read_text())
    own = {
        "name": name,
        "slot.name": name,
        "topic.prefix": name,
        "poll.interval.ms": "10",
        # A table that nobody writes meanwhile: the trial must not send anybody's events a second time.
        "table.include.list": "public.media",
        "publication.name": "fanline_cdc",
        "publication.autocreate.mode": "disabled",
    }

    def write(**changes):
        text = json.dumps(base | own | {key.replace("__", "."): value for key, value in changes.items()})
        (tmp_path / "trial.json").write_text(text)
        return tmp_path

    write.name = name
    yield write
    with connect.client(ready.settings) as client:
        if client.config(name) is not None:
            client.delete(name)
    drop_slot(ready.settings, name)


def test_applying_twice_changes_nothing(ready):
    with connect.client(ready.settings) as client:
        before = {name: client.config(name) for name in ("fanline-cdc", "fanline-outbox")}
        assert [each.outcome for each in connect.apply_all(ready.settings)] == ["unchanged", "unchanged"]
        assert {name: client.config(name) for name in before} == before
    assert ready.fanline("connectors", "apply").stdout == "fanline-cdc: unchanged\nfanline-outbox: unchanged\n"
    assert ready.fanline("connectors", "diff").stdout == "fanline-cdc: equal\nfanline-outbox: equal\n"


def test_both_connectors_run_and_say_so(ready):
    done = ready.fanline("connectors", "status", "fanline-cdc", "fanline-outbox")
    assert done.stdout == "fanline-cdc: RUNNING, tasks: RUNNING\nfanline-outbox: RUNNING, tasks: RUNNING\n"


def test_a_new_connector_is_created_then_changed_then_left_alone(ready, trial):
    assert connect.diff_all(ready.settings, trial()) == {trial.name: None}
    assert [each.outcome for each in connect.apply_all(ready.settings, trial())] == ["created"]
    changed = connect.apply_all(ready.settings, trial(poll__interval__ms="250", database__password="other"))
    assert changed[0].outcome == "changed"
    assert plan.describe(changed[0].changes) == [
        f"- database.password = {plan.HIDDEN}",
        f"+ database.password = {plan.HIDDEN}",
        "- poll.interval.ms = 10",
        "+ poll.interval.ms = 250",
    ]
    again = connect.apply_all(ready.settings, trial(poll__interval__ms="250", database__password="other"))
    assert [(each.outcome, each.changes) for each in again] == [("unchanged", [])]


def test_diff_shows_what_would_change_hides_secrets_and_exits_1(ready, trial):
    connect.apply_all(ready.settings, trial())
    folder = trial(poll__interval__ms="250", database__password="hunter2")
    done = ready.fanline("connectors", "diff", "--templates", str(folder), check=False)
    assert done.returncode == 1
    assert "  - poll.interval.ms = 10\n  + poll.interval.ms = 250\n" in done.stdout
    assert "hunter2" not in done.stdout


def test_a_broken_configuration_names_each_field_and_changes_nothing(ready, trial):
    folder = trial(poll__interval__ms="soon", slot__name="no spaces allowed", topic__prefix="")
    with pytest.raises(ConnectorRefused) as caught:
        connect.apply_all(ready.settings, folder)
    assert {"poll.interval.ms", "slot.name", "topic.prefix"} <= caught.value.faults.keys()
    done = ready.fanline("connectors", "apply", "--templates", str(folder), check=False)
    assert done.returncode == ConfigurationError.exit_code
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()[1:]] == [
        key for key, messages in caught.value.faults.items() for _ in messages
    ]
    with connect.client(ready.settings) as client:
        assert client.config(trial.name) is None


def test_a_database_that_connect_cannot_reach_is_the_fault_of_its_field(ready, trial):
    with pytest.raises(ConnectorRefused) as caught:
        connect.apply_all(ready.settings, trial(database__port="1"))
    assert any(key.startswith("database.") for key in caught.value.faults)


def test_an_unknown_connector_class_is_named(ready, trial):
    with pytest.raises(ConnectorRefused, match=r"connector\.class: .*Nonsense"):
        connect.apply_all(ready.settings, trial(connector__class="io.example.Nonsense"))


def test_a_task_that_fails_is_explained_by_its_root_cause(ready, trial):
    folder = trial(publication__name="nobody_made_it")
    with pytest.raises(ConnectorFailed, match=f"Connector {trial.name} failed: .*[Pp]ublication") as caught:
        connect.apply_all(ready.settings, folder)
    assert "\n" not in str(caught.value)
    assert "Exception" not in str(caught.value)
    done = ready.fanline("connectors", "status", trial.name, check=False)
    assert done.returncode == 1
    assert f"{trial.name}: RUNNING, tasks: FAILED\n  " in done.stdout
    assert "ublication" in done.stdout


def test_a_running_connector_that_is_changed_into_a_failing_one_is_noticed(ready, trial):
    connect.apply_all(ready.settings, trial())
    folder = trial(publication__name="nobody_made_it")
    with pytest.raises(ConnectorFailed, match=r"[Pp]ublication"):
        connect.apply_all(ready.settings, folder)


def test_a_failed_task_whose_cause_is_gone_runs_again_after_apply(ready, trial):
    folder = trial(publication__name=trial.name)
    with pytest.raises(ConnectorFailed):
        connect.apply_all(ready.settings, folder)
    with admin(ready.settings) as connection:
        connection.execute(f"CREATE PUBLICATION {trial.name} FOR TABLE media")
        try:
            assert [each.outcome for each in connect.apply_all(ready.settings, folder)] == ["restarted"]
        finally:
            connection.execute(f"DROP PUBLICATION {trial.name}")


def test_pause_resume_and_restart(ready, trial):
    connect.apply_all(ready.settings, trial())
    assert ready.fanline("connectors", "pause", trial.name).stdout == f"{trial.name}: paused\n"
    assert ready.fanline("connectors", "status", trial.name, check=False).returncode == 1
    assert [each.outcome for each in connect.apply_all(ready.settings, trial())] == ["unchanged"]
    assert ready.fanline("connectors", "resume", trial.name).stdout == f"{trial.name}: running\n"
    assert ready.fanline("connectors", "restart", trial.name).stdout == f"{trial.name}: running\n"
    assert ready.fanline("connectors", "status", trial.name).returncode == 0


def test_a_slot_that_is_gone_is_an_error_not_a_gap_and_reset_starts_anew(ready, trial):
    settings = ready.settings
    # The prefix has a topic for heartbeats, with which offsets are committed though nothing else is written.
    folder = trial(
        heartbeat__interval__ms="100", topic__prefix="fanline_outbox", custom__metric__tags="connector=trial"
    )
    connect.apply_all(settings, folder)
    with connect.client(settings) as client:
        client.wait(trial.name, lambda _: bool(client.offsets(trial.name)))
        client.delete(trial.name)
    drop_slot(settings, trial.name)
    with pytest.raises(ConnectorFailed, match="no longer available on the server") as caught:
        connect.apply_all(settings, folder)
    assert len(str(caught.value)) < 300
    assert ready.fanline("connectors", "reset", trial.name).stdout == f"{trial.name}: running from the start\n"


@contextmanager
def other_database(settings):
    """A migrated database beside the stack's; its name, and the settings with which it is the connectors'."""
    name = f"other_{uuid.uuid4().hex[:8]}"
    with admin(settings) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER fanline").format(sql.Identifier(name)))
    place = f"{settings.host}:{settings.postgres_port}/{name}"
    urls = {
        "database_url": f"postgresql://fanline@{place}",
        "connect_database_url": f"postgresql://fanline_cdc@{place}",
    }
    moved = settings.model_copy(update={key: SecretStr(url) for key, url in urls.items()})
    try:
        migrate(moved)
        yield name, moved
    finally:
        with admin(settings) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_connector_begins_anew_with_another_database_and_leaves_nothing_behind(ready, tmp_path):
    settings, name = ready.settings, f"trial_{uuid.uuid4().hex[:8]}"
    text = (plan.TEMPLATES / "replicate" / "replicate.json").read_text()
    for key, value in {"direction": name, "topic": name, "slot": name, "snapshot": "initial"}.items():
        text = text.replace(f"${{{key}}}", value)
    text = text.replace("${tables}", "public.heartbeat")
    config = json.loads(text) | {"name": name, "publication.name": "fanline_cdc"}
    (tmp_path / "trial.json").write_text(json.dumps(config))
    topic, folder = f"{name}.changes", str(tmp_path)
    topics = AdminClient(client_config(settings, name))
    topics.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    here = "SELECT database FROM pg_replication_slots WHERE slot_name = %s AND active"

    beat_at = "INSERT INTO heartbeat (id, ts) VALUES (1, %s) ON CONFLICT (id) DO UPDATE SET ts = excluded.ts"

    def beat(moment):
        with admin(settings, database) as connection:
            connection.execute(beat_at, [moment])

    def has(moment):
        return lambda records: any(moment in (record.value() or b"").decode() for record in records)

    with other_database(settings) as (database, moved):
        elsewhere = Stack(
            moved, ready.environment | {"FANLINE_CONNECT_DATABASE_URL": moved.connect_database_url.get_secret_value()}
        )
        try:
            connect.apply_all(settings, tmp_path)
            beat("2001-01-01T00:00:00Z")
            refused = elsewhere.fanline("connectors", "apply", "--templates", folder, check=False)
            assert refused.returncode == ConfigurationError.exit_code
            assert f"{name} would read another database" in refused.stderr

            with tail(settings, topic) as records, admin(settings) as connection:
                said = elsewhere.fanline("connectors", "renew", "--templates", folder, "--yes").stdout
                assert f"makes the slot {name} anew in {database} at" in said
                assert "reads all rows" in said
                assert connection.execute(here, [name]).fetchall() == [(database,)]
                assert connection.execute(here.removesuffix(" AND active"), [name]).rowcount == 1
                beat("2002-02-02T00:00:00Z")
                records.until(lambda found: has("2001-01-01")(found) and has("2002-02-02")(found))
            again = elsewhere.fanline("connectors", "renew", "--templates", folder).stdout
            assert again.endswith("already and is left alone\n")
        finally:
            with connect.client(settings) as client:
                if client.config(name) is not None:
                    client.forget(name)
            for each in ("fanline", database):
                with admin(settings, each) as connection:
                    slots.drop(connection, name, 30)
            topics.delete_topics([topic])[topic].result()


def test_whether_the_outboxs_connector_has_sent_everything_is_known(ready):
    with admin(ready.settings) as connection:
        slots.await_passed(connection, "fanline_outbox", 60)
        ready.fanline("connectors", "pause", "fanline-outbox")
        try:
            with pytest.raises(FanlineError, match=r"slot fanline_outbox has not sent everything within 1 s"):
                slots.await_passed(connection, "fanline_outbox", 1)
        finally:
            ready.fanline("connectors", "resume", "fanline-outbox")
        slots.await_passed(connection, "fanline_outbox", 60)


def test_a_database_that_no_connector_reads_has_nothing_to_wait_for(ready):
    with other_database(ready.settings) as (_, moved):
        assert not renewal.drain(moved, 1)


def test_a_connector_that_connect_does_not_know_is_named(ready):
    done = ready.fanline("connectors", "restart", "nobody", check=False)
    assert (done.returncode, done.stdout) == (ConfigurationError.exit_code, "")
    assert done.stderr.strip() == "Kafka Connect has no connector nobody: see fanline connectors status."


def test_a_connect_that_is_down_is_named_in_one_sentence():
    with (
        ConnectClient("http://127.0.0.1:1") as client,
        pytest.raises(DependencyUnavailable, match=r"^Kafka Connect does not answer at http://127\.0\.0\.1:1\.$"),
    ):
        client.names()


def test_the_template_for_cockroachdb_is_taken_and_its_faults_are_named_before_anything_is_changed(ready):
    settings = ready.settings.model_copy(update={"database_dialect": "cockroach"})
    config = connect.wanted(settings)["fanline-cdc-cockroach"]
    with connect.client(settings) as client:
        assert client.validate("fanline-cdc-cockroach", config) == {}
        # Kafka Connect itself sees wrong types; the rest is ours to see (tests/unit/test_cockroach.py).
        assert client.validate("x", config | {"poll.interval.ms": "soon"}).keys() == {"poll.interval.ms"}
        assert client.validate("x", config | {"snapshot.mode": "sometimes"}).keys() == {"snapshot.mode"}
    done = ready.fanline("connectors", "diff", check=False)
    assert "cockroach" not in done.stdout
