"""Connector templates, their differences and the causes of failure, without a server."""

import json

import pytest

from connectors import connect, plan
from connectors.connect_client import ConnectorRefused, Status
from fanline.errors import ConfigurationError
from fanline.settings import Settings


def test_the_built_in_connectors_are_filled_without_a_placeholder_left_but_debeziums_own():
    for name, config in connect.wanted(Settings()).items():
        left = {key: value for key, value in config.items() if "${" in value}
        assert left in ({}, {"transforms.outbox.route.topic.replacement": "${routedByValue}"}), name


def test_each_connector_has_its_own_slot_publication_and_prefix():
    configs = list(connect.wanted(Settings()).values())
    for key in ("slot.name", "publication.name", "topic.prefix"):
        assert len({config[key] for config in configs}) == len(configs)


def test_the_connectors_use_the_database_as_connect_sees_it():
    settings = Settings(connect_database_url="postgresql://cdc:s3cret@db.internal:5433/social?sslmode=verify-full")
    config = connect.wanted(settings)["fanline-cdc"]
    found = [config[f"database.{key}"] for key in ("hostname", "port", "user", "password", "dbname", "sslmode")]
    assert found == ["db.internal", "5433", "cdc", "s3cret", "social", "verify-full"]


def test_equal_configurations_have_no_difference_whatever_their_order_or_name():
    assert plan.differences({"b": "2", "a": "1", "name": "x"}, {"a": "1", "b": "2"}) == []


def test_a_difference_names_what_is_added_changed_and_removed():
    found = plan.differences({"same": "1", "old": "2", "both": "3"}, {"same": "1", "new": "4", "both": "5"})
    assert found == [
        plan.Difference("both", "3", "5"),
        plan.Difference("new", None, "4"),
        plan.Difference("old", "2", None),
    ]


def test_a_diff_hides_secrets_and_shows_the_rest():
    changes = plan.differences(
        {"database.password": "old-pw", "producer.override.sasl.jaas.config": "user pw", "poll.interval.ms": "500"},
        {"database.password": "new-pw", "producer.override.sasl.jaas.config": "user pw2", "poll.interval.ms": "10"},
    )
    text = "\n".join(plan.describe(changes))
    assert "pw" not in text
    assert "- poll.interval.ms = 500\n+ poll.interval.ms = 10" in text
    assert f"+ database.password = {plan.HIDDEN}" in text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "must be one object"),
        ('{"name": "x", "connector.class": "y", "tasks.max": 1}', r"\(tasks\.max\)"),
        ('{"name": "x"}', "must have `name` and `connector.class`"),
        ('{"connector.class": "x"}', "must have `name` and `connector.class`"),
    ],
)
def test_a_broken_template_is_named_with_its_fault(text, says):
    with pytest.raises(ConfigurationError, match=f"cdc.json.*{says}"):
        plan.parse_template(text, "cdc.json")


def test_an_unknown_placeholder_is_named_with_the_known_ones():
    template = plan.parse_template('{"name": "x", "connector.class": "${databse_host}"}', "x.json")
    with pytest.raises(ConfigurationError, match=r"\$\{databse_host\}, which is not one of: database_host"):
        plan.fill(template, {"database_host": "db"})


def test_a_folder_without_templates_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="no connector template"):
        plan.load_templates(tmp_path)


def test_two_templates_of_one_name_are_an_error(tmp_path):
    for file in ("a.json", "b.json"):
        (tmp_path / file).write_text(json.dumps({"name": "same", "connector.class": "x"}))
    with pytest.raises(ConfigurationError, match="same name: same"):
        plan.load_templates(tmp_path)


@pytest.mark.parametrize(
    ("trace", "cause"),
    [
        (
            "org.apache.kafka.connect.errors.ConnectException: Could not create\n\tat a.b.C.d(C.java:1)\n"
            "Caused by: io.debezium.DebeziumException: Creation of slot failed\n\tat a.b.C.d(C.java:2)\n"
            'Caused by: org.postgresql.util.PSQLException: ERROR: slot "x" is active for PID 7\n\t... 9 more\n',
            'ERROR: slot "x" is active for PID 7.',
        ),
        ("java.lang.IllegalStateException: no table\n\tat a.B.c(B.java:3)", "no table."),
        ("io.debezium.DebeziumException: outer\nCaused by: java.lang.NullPointerException\n\t... 1 more", "outer."),
        ("a.b.OuterException: a.b.c.InnerException: the inner text", "the inner text."),
        ("", "The task gives no reason."),
    ],
)
def test_the_root_cause_is_one_sentence(trace, cause):
    assert plan.root_cause(trace) == cause


def test_a_cause_that_prints_whole_objects_is_shortened_to_what_it_says():
    trace = (
        "io.debezium.DebeziumException: The connector is trying to read change stream starting at PostgresOffsetContext"
        " [sourceInfoSchema=Schema{io.debezium.connector.postgresql.Source:STRUCT}, sourceInfo=source_info[server='x',"
        " lsn=LSN{0/E3848B8}, txId=3041], transactionContext=TransactionContext [currentTransactionId=null,"
        " perTableEventCount={}], incrementalSnapshotContext=IncrementalSnapshotContext [windowOpened=false,"
        " dataCollectionsToSnapshot=[], maximumKey=null]], but this is no longer available on the server."
    )
    assert plan.root_cause(trace) == (
        "The connector is trying to read change stream starting at PostgresOffsetContext,"
        " but this is no longer available on the server."
    )


def test_refused_fields_are_a_line_each():
    error = ConnectorRefused("fanline-cdc", {"slot.name": ["is bad"], "topic.prefix": ["is empty", "is required"]})
    assert str(error).splitlines()[1:] == [
        "  slot.name: is bad",
        "  topic.prefix: is empty",
        "  topic.prefix: is required",
    ]


def test_a_connector_runs_only_when_it_and_all_its_tasks_do():
    assert Status("x", "RUNNING", ("RUNNING",)).running
    assert not Status("x", "RUNNING", ()).running
    assert not Status("x", "RUNNING", ("RUNNING", "FAILED")).running
    assert Status("x", "RUNNING", ("FAILED",)).failed
    assert not Status("x", "PAUSED", ("PAUSED",)).running
