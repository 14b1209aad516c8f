"""What a test damages by hand in each read model: for its name in the audit, whose share of it, and how.

A subject is made ready: there is something of it to compare.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import requests

from audit.stores import Stores
from audit.trends import tags_of
from audit.visitors import admitted
from fanline.addresses import public_url
from fanline.ids import first_id_at
from readmodels import documents, inbox, incremental, search, trend_uses
from readmodels.aggregates import INSTANCE, MINUTE, Series, floor_to
from readmodels.cards import ACCOUNT_CARD, STATUS_CARD
from readmodels.counts import ACCOUNT_COUNTS, STATUS_COUNTS
from readmodels.effects import Query, call, command
from readmodels.flags import FLAGS, sets
from readmodels.followers import facts_key
from readmodels.indexed import IndexWrite
from readmodels.poll_documents import POLL
from readmodels.recents import recent_key
from readmodels.relations import VIEWER
from readmodels.timelines import timeline_key
from readmodels.trend_uses import POST, TAG
from sinks.opensearch import write
from sinks.opensearch_client import OpenSearchClient
from tests.integration.contract.valkey import wait_until

NAME = "watched"
"""How the people of the test are called."""

Subject = Callable[[Stores], Any]
Damage = Callable[[Stores, Any], None]

OURS = f"SELECT id FROM users WHERE username LIKE '{NAME}\\_%%'"


def ids(stores: Stores, sql: str) -> list[Any]:
    """The column `id` of what a query finds."""
    return [row["id"] for row in stores.rows(Query(sql, {}))]


def somebody(stores: Stores) -> UUID:
    """Somebody whose warm timeline has some posts, and who has followers and posts."""
    has_both = (
        " AND EXISTS (SELECT 1 FROM posts p WHERE p.author_id = users.id)"
        " AND EXISTS (SELECT 1 FROM follows f WHERE f.followee_id = users.id)"
    )
    for person in ids(stores, OURS + has_both):
        if stores.redis([command(timeline_key(person), b"LLEN")])[0] > 3:
            return UUID(str(person))
    raise AssertionError("no timeline has posts")


def a_post(stores: Stores) -> int:
    """A post that is found in search and that somebody has done something with today."""
    posts = ids(stores, f"SELECT id FROM posts WHERE author_id IN ({OURS}) ORDER BY id DESC")
    for post in stores.drive(search.load(search.POSTS, posts)):
        if stores.redis([command(POST.people_key(b"%d" % int(str(post))), b"ZCARD")])[0]:
            return int(str(post))
    raise AssertionError("nobody has done anything with a post")


def with_document(kind: documents.Kind, of: Subject) -> Subject:
    """A subject whose document of this kind is there."""

    def ready(stores: Stores) -> Any:
        subject = of(stores)
        stores.drive(documents.fill([(kind, subject)], public_url(stores.settings)))
        return subject

    return ready


def with_value(kind: incremental.Kind, of: Subject) -> Subject:
    """A subject whose value of this kind is there."""

    def ready(stores: Stores) -> Any:
        subject = of(stores)
        stores.drive(incremental.fill([(kind, subject)]))
        return subject

    return ready


def spoil(kind: documents.Kind) -> Damage:
    """Another document, with a token that claims to be newer than any."""
    return lambda stores, subject: stores.redis([command(kind.key(subject), b"SET", b"\xff" * 8 + b"nonsense")])


def miscount(kind: incremental.Kind) -> Damage:
    """One more, or one less, in the first counter."""

    def damage(stores: Stores, subject: Any) -> None:
        (value,) = stores.redis([incremental.read((kind, subject))])
        changed = value[:8] + bytes([value[8] ^ 1]) + value[9:]
        stores.redis([command(kind.key(subject), b"SET", changed)])

    return damage


def add_a_flag(stores: Stores, person: UUID) -> None:
    """The last set gets an id that its owner has nothing to do with."""
    (value,) = stores.redis([incremental.read((FLAGS, person))])
    payload = incremental.body(value) or b""
    horizon, found = sets(payload)[-1]
    more = payload[: len(payload) - 8 * len(found) - 12]
    more += (
        horizon.to_bytes(8) + (len(found) + 1).to_bytes(4) + b"".join(each.to_bytes(8) for each in (*found, 1 << 62))
    )
    changed = b"H" + len(more).to_bytes(4) + more + value[5 + len(payload) :]
    stores.redis([command(FLAGS.key(person), b"SET", changed)])


def lose_an_entry(stores: Stores, person: UUID) -> None:
    """A timeline without one of its posts."""
    key = timeline_key(person)
    entry = stores.redis([command(key, b"LRANGE", -1, -1)])[0][0]
    stores.redis([command(key, b"LREM", 0, entry)])


def lose_recents(stores: Stores, person: UUID) -> None:
    """An author's recent list without its posts."""
    stores.redis([command(recent_key(person), b"LTRIM", 0, 0)])


def lose_and_add_followers(stores: Stores, person: UUID) -> None:
    """One follower is gone, nobody follows, and one follows twice."""
    key = facts_key(person) + b":0"
    chunk = stores.redis([command(key, b"GET")])[0]
    stores.redis([command(key, b"SET", chunk[16:] + bytes(16) + chunk[16:32])])


def a_poll(stores: Stores) -> int:
    """A poll that somebody has posted."""
    person, url = somebody(stores), public_url(stores.settings)
    with admitted(stores.connection, [person], "Damages", url) as tokens:
        form = {"status": "Tea?", "poll[options][]": ["yes", "no"], "poll[expires_in]": "3600"}
        headers = {"Authorization": f"Bearer {tokens[person]}"}
        answer = requests.post(f"{url}/api/v1/statuses", data=form, headers=headers, timeout=10)
    answer.raise_for_status()
    return int(answer.json()["poll"]["id"])


def this_day(_: Stores) -> Series:
    """The instance's minutes of today."""
    return Series(INSTANCE, MINUTE, floor_to(int(time.time()), MINUTE.period))


def count_at_midnight(stores: Stores, series: Series) -> None:
    """Something was done in a minute that nobody writes to any more."""
    stores.redis([command(series.key(), b"HSET", series.start.to_bytes(4), b"\xff" * 8 + (7).to_bytes(4) * 6)])


def tell_of_nothing(stores: Stores, person: UUID) -> None:
    """A notification of a like that was never there."""
    identifier = first_id_at(time.time_ns() // 1_000_000)
    insert = """
    INSERT INTO notifications (id, user_id, type, from_account_id, post_id, group_key, created_at, cause)
    SELECT %(id)s, %(person)s, 'favourite', p.author_id, p.id, 'g', to_timestamp(0), %(id)s
    FROM posts p WHERE p.author_id <> %(person)s LIMIT 1 RETURNING id
    """
    assert stores.rows(Query(insert, {"id": identifier, "person": person}))


def who_was_told(stores: Stores) -> UUID:
    """Somebody with notifications, and an inbox of them."""
    shown = "dismissed_at IS NULL AND NOT filtered"
    told = f"SELECT user_id AS id FROM notifications WHERE {shown} AND user_id IN ({OURS})"
    wait_until(lambda: bool(ids(stores, told)), "somebody is told of something")
    person = UUID(str(ids(stores, told)[0]))
    stores.drive(inbox.fill(person, stores.settings.notifications_cap, 3_600))
    return person


def lose_a_notification(stores: Stores, person: UUID) -> None:
    """An inbox without its newest."""
    stores.redis([command(inbox.inbox_key(person), b"ZREMRANGEBYRANK", -1, -1)])


def change_document(kind: search.Searchable, change: Mapping[str, Any] | None) -> Damage:
    """Other fields in an index, or no document at all."""

    def damage(stores: Stores, subject: Any) -> None:
        prefix = stores.settings.search_prefix
        (token,) = stores.redis([call(b"document_token", [documents.TOKEN_KEY])])
        client = OpenSearchClient(stores.settings)
        try:
            found = client.documents(kind.read_alias(prefix), [str(subject)])[str(subject)]
            body = None if change is None else json.dumps({**found, **change}).encode()
            write(client, [IndexWrite(kind.write_alias(prefix), str(subject), int(token), body)])
        finally:
            client.close()

    return damage


def a_hashtag(stores: Stores) -> str:
    """A hashtag of today."""
    posts = ids(stores, f"SELECT id FROM posts WHERE author_id IN ({OURS})")
    return tags_of(stores, posts)[0]


def lose_uses(stores: Stores, name: str) -> None:
    """A hashtag that nobody seems to have used."""
    stores.redis([trend_uses.forget(TAG, name.encode(), time.time_ns() // 1_000_000)])


def lose_a_use(stores: Stores, post: int) -> None:
    """A post that something less was done with."""
    stores.redis([command(POST.people_key(b"%d" % post), b"ZREMRANGEBYRANK", 0, 0)])


DAMAGES: Mapping[str, tuple[Subject, Damage]] = {
    "timelines": (somebody, lose_an_entry),
    "timelines_redis": (somebody, lose_an_entry),
    "recents": (somebody, lose_recents),
    "followers": (somebody, lose_and_add_followers),
    "relations": (with_document(VIEWER, somebody), spoil(VIEWER)),
    "account_cards": (with_document(ACCOUNT_CARD, somebody), spoil(ACCOUNT_CARD)),
    "account_counts": (with_value(ACCOUNT_COUNTS, somebody), miscount(ACCOUNT_COUNTS)),
    "flags": (with_value(FLAGS, somebody), add_a_flag),
    "status_cards": (with_document(STATUS_CARD, a_post), spoil(STATUS_CARD)),
    "status_counts": (with_value(STATUS_COUNTS, a_post), miscount(STATUS_COUNTS)),
    "poll_counts": (with_document(POLL, a_poll), spoil(POLL)),
    "aggregates": (this_day, count_at_midnight),
    "notifications": (somebody, tell_of_nothing),
    "inboxes": (who_was_told, lose_a_notification),
    "search_users": (somebody, change_document(search.USERS, None)),
    "search_posts": (a_post, change_document(search.POSTS, {"text": "nobody wrote this"})),
    "trend_tags": (a_hashtag, lose_uses),
    "trend_posts": (a_post, lose_a_use),
}
"""By the model's name: whose share of it, and what is done to that."""
