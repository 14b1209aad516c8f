"""Messages a second of the couriers of the flows `push` and `email`: `python -m benchmarks.channels`.

1,500 people have a push subscription, and 200 of them want digests; each is told of three follows. The 4,500 events
wait in `notification.dispatched` before a flow starts. `push` makes pending deliveries of them, and its courier claims
them, encrypts them and posts each to a push service on loopback, a connection each, 64 at a time; `value` is messages a
second from the first that comes to the last. The ceiling is its sender alone (sinks/push.py), in a process of its own
with all 4,500 messages ready, as many at a time, to the same server, before and after. The other ends run in the
benchmark's process, so that neither sender shares its interpreter with them.

Then the same for `email`: its courier sends 200 mails of three notifications, four at a time, when all digests have
become due at once (`mails_per_second`); the ceiling is its sender alone (sinks/smtp.py) with ready mails
(`mails_ceiling`). In the end every notification must have been pushed once, and everybody who wants one have one mail.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from multiprocessing import get_context
from typing import Any
from uuid import UUID

from psycopg.rows import dict_row

from benchmarks.channel_ends import PushService, mail_server, push_service
from benchmarks.flow_runs import LONGEST_SECONDS, cpu_seconds, metric, metrics_url, must_run, running
from benchmarks.own_stack import migrated_stack
from benchmarks.records import Connection, copy, write_events
from benchmarks.report import finish, run_benchmark
from benchmarks.servers import free_port
from dataflows.courier import IN_FLIGHT
from dataflows.email import IN_FLIGHT as MAILS_IN_FLIGHT
from fanline.addresses import public_url
from fanline.database import connect
from fanline.ids import TimeOrderedIds
from fanline.settings import Settings
from fanline.vapid import VapidKey, new_private_key
from readmodels import digest, push
from readmodels.channel_deliveries import Channel
from readmodels.effects import Query
from schemas.registry import encoder
from sinks import smtp
from sinks.outcome import Outcome
from sinks.push import PushSender

PEOPLE, READERS, EACH = 1_500, 200, 3
SENDER = "fanline@example.org"
LOOK_SECONDS = 0.1

Message = tuple[str, str, str, bytes]
"""Endpoint, keys and content of a push message."""
Mail = tuple[EmailMessage, str]


def main() -> dict[str, Any]:
    """The benchmark."""
    chosen = {
        "FANLINE_PUSH_PRIVATE_ENDPOINTS": "true", "FANLINE_SMTP_HOST": "127.0.0.1",
        "FANLINE_SMTP_PORT": str(free_port()), "FANLINE_SMTP_SECURITY": "none", "FANLINE_SMTP_FROM": SENDER,
    }  # fmt: skip
    with (
        migrated_stack("postgres,kafka,registry", chosen) as (environment, settings),
        connect(settings, autocommit=True) as connection,
        push_service() as service,
        mail_server(settings.smtp_port) as mailbox,
        ProcessPoolExecutor(1, get_context("spawn")) as alone,
    ):
        ids = prepare(connection, settings, service)
        messages = ready_messages(connection, settings, ids)
        ceilings = [alone.submit(push_alone, messages).result()]
        service.taken.clear()
        pushed = courier(connection, environment, "push", service.taken, PEOPLE, lambda: None)
        if sorted(service.notifications()) != sorted(ids):
            raise RuntimeError("not every notification was pushed once")
        ceilings.append(alone.submit(push_alone, messages).result())
        mails = ready_mails(connection, settings, ids)
        server = smtp.mail_server(settings)
        mail_ceilings = [alone.submit(mails_alone, server, mails).result()]
        mailbox.taken.clear()
        mailed = courier(connection, environment, "email", mailbox.taken, READERS, lambda: make_due(connection))
        if sorted(recipient for _, recipient in mailbox.taken) != sorted(recipient for _, recipient in mails):
            raise RuntimeError("not everybody who wants mail has got one")
        mail_ceilings.append(alone.submit(mails_alone, server, mails).result())
    mails_ceiling = round(sum(mail_ceilings) / 2)
    return finish(
        "channels", value=pushed.pop("rate"), unit="push messages/s", ceiling=round(sum(ceilings) / 2),
        ceiling_by="the sender alone", ceilings=list(map(round, ceilings)), people=PEOPLE, messages=len(ids), **pushed,
        mails=READERS,
        mails_per_second=mailed["rate"], mails_ceiling=mails_ceiling,
        mails_ratio=round(mailed["rate"] / mails_ceiling, 3),
        **{f"mails_{name}": figure for name, figure in mailed.items() if name != "rate"},
    )  # fmt: skip


def prepare(connection: Connection, settings: Settings, service: PushService) -> list[int]:
    """People, subscriptions, preferences, notifications and their events; the notifications' ids."""
    people = [UUID(int=number + 1) for number in range(PEOPLE)]
    now = datetime.now(UTC)
    earlier, later = now - timedelta(days=1), now + timedelta(days=1)
    application, (point, secret) = UUID(int=1), service.keys
    copy(connection, "users (id, username)", ((person, f"p{number}") for number, person in enumerate(people)))
    identities = ((person, address(number), "none", earlier) for number, person in enumerate(people))
    copy(connection, "identities (user_id, email, password_hash, confirmed_at)", identities)
    columns = "applications (id, name, redirect_uris, scopes, client_id, client_secret_hash)"
    copy(connection, columns, [(application, "phone", "{}", "push", "phone", "none")])
    sessions = ((person, person, application, "push", later) for person in people)
    copy(connection, "sessions (id, user_id, application_id, scopes, expires_at)", sessions)
    columns = "push_subscriptions (id, session_id, user_id, endpoint, key_p256dh, key_auth, alerts)"
    wanted = ((each, each, each, service.endpoint(each), point, secret, '{"follow": true}') for each in people)
    copy(connection, columns, wanted)
    preferences = ((person, "hourly", str(person)) for person in people[:READERS])
    copy(connection, "email_preferences (user_id, digest, unsubscribe_token)", preferences)
    ids = TimeOrderedIds()
    told = [
        (ids.next(), person, people[(number + step + 1) % PEOPLE])
        for step in range(EACH)
        for number, person in enumerate(people)
    ]
    columns = "notifications (id, user_id, type, from_account_id, created_at)"
    copy(connection, columns, ((each, user, "follow", sender, now) for each, user, sender in told))
    connection.execute("VACUUM ANALYZE")
    events = (
        (
            str(user),
            {
                "notification_id": str(each), "account_id": str(user), "type": "follow", "from_account_id": str(sender),
                "post_id": None, "created_at": now, "group_key": None,
            },
        )
        for each, user, sender in told
    )  # fmt: skip
    write_events(connection, encoder(settings), "notification.dispatched", events)
    return [each for each, _, _ in told]


def address(number: int) -> str:
    """Where person `number` gets mail."""
    return f"p{number}@example.org"


def rows(connection: Connection, query: Query) -> list[dict[str, Any]]:
    """The rows of a query."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query.sql.encode(), query.parameters).fetchall()


def ready_messages(connection: Connection, settings: Settings, ids: Sequence[int]) -> list[Message]:
    """Every push message, as the courier makes it."""
    targets, url = [UUID(int=number + 1) for number in range(PEOPLE)], public_url(settings)
    return [
        (row["endpoint"], row["key_p256dh"], row["key_auth"], push.payload(row, url, None))
        for row in rows(connection, push.messages(ids, targets))
    ]


def ready_mails(connection: Connection, settings: Settings, ids: Sequence[int]) -> list[Mail]:
    """Every mail, as the courier makes it, and its recipient."""
    targets = [UUID(int=number + 1) for number in range(READERS)]
    unread: dict[UUID, list[dict[str, Any]]] = {}
    for row in rows(connection, digest.unread(ids, targets)):
        unread.setdefault(row["user_id"], []).append(row)
    how: dict[str, Any] = {
        "instance": settings.instance_title, "sender": SENDER, "public_url": public_url(settings),
        "now": datetime.now(UTC),
    }  # fmt: skip
    return [
        (digest.digest_mail(reader, unread[reader["user_id"]], **how), reader["email"])
        for reader in rows(connection, digest.readers(targets))
    ]


def push_alone(messages: Sequence[Message]) -> float:
    """Messages a second of the sender alone."""
    return asyncio.run(_push_alone(messages))


async def _push_alone(messages: Sequence[Message]) -> float:
    key = VapidKey(new_private_key())
    sender = PushSender(key, f"mailto:{SENDER}", allow_private=True, ttl_seconds=push.TTL_SECONDS)
    waiting = iter(messages)

    async def send_some() -> None:
        for message in waiting:
            must_be_sent(await sender.send(*message))

    started = time.perf_counter()
    await asyncio.gather(*(send_some() for _ in range(IN_FLIGHT)))
    rate = len(messages) / (time.perf_counter() - started)
    await sender.close()
    return rate


def mails_alone(server: smtp.MailServer, mails: Sequence[Mail]) -> float:
    """Mails a second of the sender alone."""
    started = time.perf_counter()
    with ThreadPoolExecutor(MAILS_IN_FLIGHT) as pool:
        for outcome in pool.map(lambda mail: server.send(mail[0], SENDER, mail[1]), mails):
            must_be_sent(outcome)
    return len(mails) / (time.perf_counter() - started)


def must_be_sent(outcome: Outcome) -> None:
    """Raises `RuntimeError` for anything that was not taken."""
    if outcome.kind != "sent":
        raise RuntimeError(f"not sent: {outcome.reason}")


def courier(
    connection: Connection,
    environment: Mapping[str, str],
    channel: Channel,
    taken: Sequence[tuple[float, Any]],
    people: int,
    make_ready: Callable[[], None],
) -> dict[str, float]:
    """Runs a channel's flow until everything for so many people is sent and noted; messages a second, first to last.

    `make_ready` is called when all deliveries are there.
    """
    deliveries, expected = people * EACH, people * EACH if channel == "push" else people
    deadline = time.perf_counter() + LONGEST_SECONDS
    before, is_ready = 0.0, False
    with running(channel, environment) as process:
        while (states := states_of(connection, channel)) != {"sent": deliveries}:
            must_run(process)
            if time.perf_counter() > deadline:
                raise RuntimeError(f"{channel}: {states} of {deliveries} after {LONGEST_SECONDS:g} s")
            if not taken:
                before = cpu_seconds(process)
            if not is_ready and states == {"pending": deliveries}:
                make_ready()
                is_ready = True
            time.sleep(LOOK_SECONDS)
        after = cpu_seconds(process)
        statements = metric(metrics_url(channel, environment), "fanline_sql_statements_total")
    if len(taken) != expected:
        raise RuntimeError(f"{channel}: {len(taken)} messages came, not {expected}")
    seconds = taken[-1][0] - taken[0][0]
    return {
        "rate": round((expected - 1) / seconds),
        "flow_cores": round((after - before) / seconds, 2),
        "statements_per_message": round(statements / expected, 2),
    }


def states_of(connection: Connection, channel: Channel) -> dict[str, int]:
    """How many deliveries are in each state."""
    sql = "SELECT state, count(*) AS number FROM notification_deliveries WHERE channel = %(channel)s GROUP BY state"
    return {row["state"]: row["number"] for row in rows(connection, Query(sql, {"channel": channel}))}


def make_due(connection: Connection) -> None:
    """Every digest is due now."""
    connection.execute("UPDATE notification_deliveries SET next_attempt_at = now() WHERE channel = 'email'")


if __name__ == "__main__":
    run_benchmark(main)
