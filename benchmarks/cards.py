"""Changes a second of the cards flow, from Kafka over SQL to Redis: `python -m benchmarks.cards`.

40,000 public posts by 5,000 people, of some twenty words with a mention and a hashtag, wait in `cdc.posts` before the
flow starts, and the people in `cdc.users`. Each change makes one document, a card; that of a person who reads (500 do)
makes the document of their relations too, to twenty people each. The ceiling is the sink's own work alone: the same
commands and calls of Functions with documents that are ready, recorded beforehand in batches of the flow's size, and
pipelined by our own sender, before and after, from the same state of Redis.

Far more than writing documents it costs to make them. `query_share` is the share of the flow's time that the same
queries take alone (`queries_alone` changes a second), `making_share` the one of making JSON of their rows. In the end
every account's documents and those of every tenth post must equal the database.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from audit.checks import check_documents
from audit.stores import Stores
from benchmarks.flow_runs import Recording, beside_ceiling, must_equal
from benchmarks.own_stack import migrated_stack
from benchmarks.records import POSTS_SCHEMA, ChangeLog, Connection, copy, post_row, value_schema, write_changes
from benchmarks.report import finish, run_benchmark
from connectors.kafka_source import BATCH_RECORDS
from dataflows.effects import Performer
from fanline.addresses import public_url
from fanline.database import connect
from fanline.ids import TimeOrderedIds
from fanline.settings import Settings
from readmodels import documents
from readmodels.affected import affected
from readmodels.cards import ACCOUNT_CARD, STATUS_CARD
from readmodels.documents import Reference
from readmodels.relations import VIEWER

PEOPLE, READERS, FOLLOWED = 5_000, 500, 20
NUMBER, HASHTAGS = 40_000, 200
CHANGES = PEOPLE + NUMBER
TEXT = "the river ran over old stones while somebody sang of winter and nobody listened to a word"
WORDS = TEXT.split()

USERS_SCHEMA = value_schema(
    "users", id="string", username="string", display_name="string", note="string", fields="string",
    avatar_media_id="string?", header_media_id="string?", locked="boolean", bot="boolean", discoverable="boolean",
    indexable="boolean", default_visibility="string", default_sensitive="boolean", default_language="string?",
    created_at="string", updated_at="string", silenced_at="string?", suspended_at="string?",
)  # fmt: skip


def main() -> dict[str, Any]:
    """The benchmark."""
    people = [UUID(int=number + 1) for number in range(PEOPLE)]
    ids = TimeOrderedIds()
    posts = [ids.next() for _ in range(NUMBER)]
    with migrated_stack("postgres,valkey,kafka,registry") as (environment, settings):
        performer = Performer(settings, "benchmark")
        with connect(settings, autocommit=True) as connection:
            write_rows(connection, people, posts)
            write_all_changes(connection, people, posts)
        begin = Recording(performer)
        begin.run(documents.fill([(VIEWER, reader) for reader in people[:READERS]], public_url(settings)))
        recording = record(performer, settings, people, posts)
        figures = beside_ceiling(
            "cards", ["cdc.posts", "cdc.users"], environment, performer, begin.payloads, recording,
            lambda: check(settings, people, posts),
        )  # fmt: skip
        performer.close()
    alone = round(CHANGES / recording.query_seconds)
    return finish("cards", unit="changes/s", posts=NUMBER, people=PEOPLE, queries_alone=alone, **figures)


def text_of(number: int) -> str:
    """What post `number` says."""
    words = [WORDS[(number * 7 + step * step) % len(WORDS)] for step in range(20)]
    return f"@p{(number * 3 + 1) % PEOPLE} {' '.join(words)} #tag{number % HASHTAGS}"


def write_rows(connection: Connection, people: Sequence[UUID], posts: Sequence[int]) -> None:
    """People, their follows, and posts with mentions and hashtags."""
    note = "I write of rivers.\n\nhttps://example.org/rivers"
    users = ((person, f"p{number}", f"Person {number}", note) for number, person in enumerate(people))
    copy(connection, "users (id, username, display_name, note)", users)
    follows = (
        (reader, people[(number + step * 7) % PEOPLE])
        for number, reader in enumerate(people[:READERS])
        for step in range(1, FOLLOWED + 1)
    )
    copy(connection, "follows (follower_id, followee_id)", follows)
    rows = ((post, people[number % PEOPLE], text_of(number), "en") for number, post in enumerate(posts))
    copy(connection, "posts (id, author_id, text, language)", rows)
    mentions = ((post, people[(number * 3 + 1) % PEOPLE]) for number, post in enumerate(posts))
    copy(connection, "post_mentions (post_id, account_id)", mentions)
    hashtags = [UUID(int=number + 1) for number in range(HASHTAGS)]
    copy(connection, "hashtags (id, name)", ((hashtag, f"tag{number}") for number, hashtag in enumerate(hashtags)))
    tagged = ((post, hashtags[number % HASHTAGS]) for number, post in enumerate(posts))
    copy(connection, "post_hashtags (post_id, hashtag_id)", tagged)
    connection.execute("VACUUM ANALYZE")


def write_all_changes(connection: Connection, people: Sequence[UUID], posts: Sequence[int]) -> None:
    """The changes of people and posts in Kafka."""
    log, now = ChangeLog(connection), datetime.now(UTC).isoformat()

    def users() -> Iterator[tuple[str, dict[str, Any]]]:
        nothing = ("avatar_media_id", "header_media_id", "default_language", "silenced_at", "suspended_at")
        for number, person in enumerate(people):
            row = dict.fromkeys(nothing) | {
                "id": str(person), "username": f"p{number}", "display_name": f"Person {number}", "note": "",
                "fields": "[]", "locked": False, "bot": False, "discoverable": True, "indexable": True,
                "default_visibility": "public", "default_sensitive": False, "created_at": now, "updated_at": now,
            }  # fmt: skip
            yield str(person), log.change(row)

    write_changes("cdc.users", USERS_SCHEMA, users())
    rows = (post_row(post, people[number % PEOPLE], now) for number, post in enumerate(posts))
    write_changes("cdc.posts", POSTS_SCHEMA, ((str(row["id"]), log.change(row)) for row in rows))


def batches(people: Sequence[UUID], posts: Sequence[int]) -> Iterator[list[Reference]]:
    """The documents that batches of changes affect, those of one read model at a time."""
    tables = [("posts", {"id": post}) for post in posts] + [("users", {"id": person}) for person in people]
    for start in range(0, CHANGES, BATCH_RECORDS):
        stale: set[Reference] = set().union(*(affected(*each) for each in tables[start : start + BATCH_RECORDS]))
        for model in {kind.model for kind, _ in stale}:
            yield [reference for reference in stale if reference[0].model == model]


def record(performer: Performer, settings: Settings, people: Sequence[UUID], posts: Sequence[int]) -> Recording:
    """What the flow makes of the changes."""
    recording, url = Recording(performer), public_url(settings)
    for stale in batches(people, posts):
        recording.run(documents.refresh(stale, url))
    return recording


def check(settings: Settings, people: Sequence[UUID], posts: Sequence[int]) -> None:
    """Raises unless documents equal the database."""
    stores, url = Stores(settings), public_url(settings)
    try:
        must_equal("account cards", check_documents([ACCOUNT_CARD], url)(stores, people))
        must_equal("status cards", check_documents([STATUS_CARD], url)(stores, posts[::10]))
        must_equal("relations", check_documents([VIEWER], url)(stores, people[:READERS]))
    finally:
        stores.close()


if __name__ == "__main__":
    run_benchmark(main)
