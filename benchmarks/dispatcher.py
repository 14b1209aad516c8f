"""Notifications a second of the dispatcher flow, from Kafka over SQL to Redis: `python -m benchmarks.dispatcher`.

500 people read their notifications: each one's inbox is there, with 400 notifications of before, as many as it keeps.
100,000 new ones, 200 for each, wait in `cdc.notifications` before the flow starts, so that inboxes are cut again and
again. Each row is read from the database once more and put into its inbox. The ceiling is the sink's own work alone:
the same commands and calls of Functions of rows that are ready, recorded beforehand in batches of the flow's size, and
pipelined by our own sender, before and after, from the same state of Redis.

`query_share` is the share of the flow's time that the same queries take alone (`queries_alone` notifications a second),
`making_share` the one of making the calls of their rows. In the end every inbox must equal the database.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from audit.notifications import DAY_SECONDS, check_inboxes
from audit.stores import Stores
from benchmarks.flow_runs import Payload, Recording, beside_ceiling, must_equal
from benchmarks.own_stack import migrated_stack
from benchmarks.records import ChangeLog, Connection, copy, value_schema, write_changes
from benchmarks.report import finish, run_benchmark
from connectors.kafka_source import BATCH_RECORDS
from dataflows.effects import Performer
from fanline.database import connect
from fanline.ids import TimeOrderedIds, created_ms
from fanline.settings import Settings
from readmodels import inbox
from readmodels.inbox import Changed

PEOPLE, BEFORE, NEW = 500, 400, 200
TOPIC = "cdc.notifications"

NOTIFICATIONS_SCHEMA = value_schema(
    "notifications", id="long", user_id="string", type="string", from_account_id="string?", post_id="long?",
    report_id="string?", group_key="string?", filtered="boolean", created_at="string", dismissed_at="string?",
    cause="long?", moderation_action_id="string?",
)  # fmt: skip

Notification = tuple[int, UUID, UUID]
"""Its id, who is told, and of whom."""


def main() -> dict[str, Any]:
    """The benchmark."""
    people = [UUID(int=number + 1) for number in range(PEOPLE)]
    ids = TimeOrderedIds()
    with migrated_stack("postgres,valkey,kafka,registry") as (environment, settings):
        performer = Performer(settings, "benchmark")
        with connect(settings, autocommit=True) as connection:
            copy(connection, "users (id, username)", ((person, f"p{number}") for number, person in enumerate(people)))
            write_rows(connection, made_up(ids, people, BEFORE))
            before_new = fill(performer, settings, people)
            new = made_up(ids, people, NEW)
            write_rows(connection, new)
            write_all_changes(connection, new)
        recording = record(performer, settings, new)
        figures = beside_ceiling(
            "dispatcher", [TOPIC], environment, performer, before_new, recording, lambda: check(settings, people)
        )
        performer.close()
    alone = round(len(new) / recording.query_seconds)
    return finish("dispatcher", unit="notifications/s", inboxes=PEOPLE, queries_alone=alone, **figures)


def made_up(ids: TimeOrderedIds, people: Sequence[UUID], each: int) -> list[Notification]:
    """Notifications for everybody in turn, each of somebody else."""
    return [
        (ids.next(), person, people[(number + 1 + step % (PEOPLE - 1)) % PEOPLE])
        for step in range(each)
        for number, person in enumerate(people)
    ]


def write_rows(connection: Connection, made: Sequence[Notification]) -> None:
    """Notifications of follows in the database."""
    columns = "notifications (id, user_id, type, from_account_id, created_at)"
    copy(connection, columns, ((each, user, "follow", sender, moment(each)) for each, user, sender in made))
    connection.execute("VACUUM ANALYZE notifications")


def write_all_changes(connection: Connection, made: Sequence[Notification]) -> None:
    """The changes of the notifications in Kafka."""
    log = ChangeLog(connection)
    nothing = ("post_id", "report_id", "group_key", "dismissed_at", "cause", "moderation_action_id")

    def changes() -> Iterator[tuple[str, dict[str, Any]]]:
        for each, user, sender in made:
            row = dict.fromkeys(nothing) | {
                "id": each, "user_id": str(user), "type": "follow", "from_account_id": str(sender), "filtered": False,
                "created_at": moment(each).isoformat(),
            }  # fmt: skip
            yield str(each), log.change(row)

    write_changes(TOPIC, NOTIFICATIONS_SCHEMA, changes())


def moment(identifier: int) -> datetime:
    """The time in an id."""
    return datetime.fromtimestamp(created_ms(identifier) / 1_000, UTC)


def fill(performer: Performer, settings: Settings, people: Sequence[UUID]) -> list[Payload]:
    """Makes everybody's inbox from the database, as their first read does; its commands."""
    recording, warm_seconds = Recording(performer), settings.timeline_warm_days * DAY_SECONDS
    for person in people:
        recording.run(inbox.fill(person, settings.notifications_cap, warm_seconds))
    return recording.payloads


def record(performer: Performer, settings: Settings, made: Sequence[Notification]) -> Recording:
    """What the flow makes of the changes."""
    recording = Recording(performer)
    changes = [Changed(user, each) for each, user, _ in made]
    cap, slack = settings.notifications_cap, settings.notifications_slack
    for start in range(0, len(changes), BATCH_RECORDS):
        recording.run(inbox.apply(changes[start : start + BATCH_RECORDS], cap, slack))
    return recording


def check(settings: Settings, people: Sequence[UUID]) -> None:
    """Raises unless every inbox equals the database."""
    stores = Stores(settings)
    try:
        must_equal("inboxes", check_inboxes(stores, people))
    finally:
        stores.close()


if __name__ == "__main__":
    run_benchmark(main)
