"""A random social network in a private Postgres, and home timelines over it with a private Redis."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg

from api.database import Database
from api.document_cache import DocumentCache
from api.documents import Documents
from api.effects import run
from api.entities import Entities
from api.home import HomeTimelines
from api.read_your_writes import OwnWrites
from api.redis_client import RedisAddress, RedisClient
from api.redis_tracking import RedisTracking
from api.shared_facts import HomeCache
from api.stored_reads import StoredReads
from api.timelines import open_home
from fanline.clock import ManualClock, SystemClock
from fanline.database import open_async_pool
from fanline.settings import Settings
from readmodels import incremental, readiness
from readmodels.home_rules import Page

PUBLIC_URL = "http://localhost:8080"
FIRST_POST = 1_700_000_000_000 << 16
"""Posts get ids from here on, a second apart."""


@dataclass
class World:
    """What was written: people, and the ids of their posts in order."""

    people: list[UUID]
    posts: list[int] = field(default_factory=list)
    authors: dict[int, UUID] = field(default_factory=dict)

    def next_id(self) -> int:
        """The id of a post that is newer than all."""
        return self.posts[-1] + (1_000 << 16) if self.posts else FIRST_POST


def make_people(database: psycopg.Connection[Any], count: int, rng: random.Random) -> World:
    """People of whom nobody follows anybody."""
    people = [UUID(int=rng.getrandbits(128), version=4) for _ in range(count)]
    with database.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO users (id, username, display_name, note) VALUES (%s, %s, %s, %s)",
            [(person, f"person{person.hex[:12]}", f"Person “{n}”", f"I am {n}") for n, person in enumerate(people)],
        )
    database.commit()
    return World(people)


def add_post(
    database: psycopg.Connection[Any],
    world: World,
    author: UUID,
    *,
    text: str = "",
    visibility: str = "public",
    reply_to: int | None = None,
    repost_of: int | None = None,
) -> int:
    """Write one post, newer than all others; its id."""
    post_id = world.next_id()
    reply_author = world.authors[reply_to] if reply_to is not None else None
    database.execute(
        "INSERT INTO posts (id, author_id, text, visibility, in_reply_to_id, in_reply_to_account_id, repost_of_id,"
        " created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, to_timestamp(%s))",
        (post_id, author, text, visibility, reply_to, reply_author, repost_of, (post_id >> 16) / 1000),
    )
    world.posts.append(post_id)
    world.authors[post_id] = author
    return post_id


def add_poll(database: psycopg.Connection[Any], post_id: int, voters: Iterable[UUID], *, multiple: bool = False) -> int:
    """Give a post a poll of two options, of which the voters choose the first (and the second if they may); its id."""
    poll = post_id + 1
    database.execute("INSERT INTO polls (id, post_id, multiple) VALUES (%s, %s, %s)", (poll, post_id, multiple))
    database.execute("INSERT INTO poll_options VALUES (%(poll)s, 0, 'Tea'), (%(poll)s, 1, 'Coffee')", {"poll": poll})
    for voter in voters:
        for position in range(1 + multiple):
            database.execute(
                "INSERT INTO poll_votes (poll_id, voter_id, position) VALUES (%s, %s, %s)", (poll, voter, position)
            )
    return poll


def add_engagement(database: psycopg.Connection[Any], world: World, rng: random.Random) -> None:
    """Likes, bookmarks, pins, muted threads and polls with votes, all over the world."""
    for table, times in (("likes", 200), ("bookmarks", 60), ("pins", 20), ("conversation_mutes", 20)):
        for _ in range(times):
            database.execute(
                f"INSERT INTO {table} (user_id, post_id) SELECT %s, id FROM posts WHERE id = %s ON CONFLICT DO NOTHING",
                (rng.choice(world.people), rng.choice(world.posts)),
            )
    rows = database.execute("SELECT id FROM posts WHERE repost_of_id IS NULL ORDER BY id").fetchall()
    for (post_id,) in rng.sample(rows, len(rows) // 8):
        add_poll(database, post_id, rng.sample(world.people, 4), multiple=rng.random() < 0.5)


def add_filters(database: psycopg.Connection[Any], world: World, rng: random.Random) -> None:
    """Filters of half the people: of words in texts and polls, of single posts, some of them over."""
    for person in world.people[::2]:
        for keyword, whole, ends in (("Post 1", False, "1 day"), ("tea", True, None), ('"ü"', True, "-1 day")):
            (found,) = database.execute(
                "INSERT INTO filters (id, user_id, title, contexts, action, expires_at)"
                " VALUES (gen_random_uuid(), %s, %s, '{home,thread}', %s, now() + %s::interval) RETURNING id",
                (person, keyword, rng.choice(("warn", "hide")), ends),
            ).fetchall()
            database.execute(
                "INSERT INTO filter_keywords (id, filter_id, keyword, whole_word)"
                " VALUES (gen_random_uuid(), %s, %s, %s)",
                (*found, keyword, whole),
            )
            for post_id in rng.sample(world.posts, 10):
                database.execute("INSERT INTO filter_posts VALUES (gen_random_uuid(), %s, %s)", (*found, post_id))


def make_world(database: psycopg.Connection[Any], rng: random.Random, people: int = 12, posts: int = 200) -> World:
    """A dense network with everything that the rules of the home timeline tell apart."""
    world = make_people(database, people, rng)
    for follower in world.people:
        for followee in rng.sample(world.people, people // 2):
            if follower != followee:
                database.execute(
                    "INSERT INTO follows (follower_id, followee_id, show_reblogs) VALUES (%s, %s, %s)",
                    (follower, followee, rng.random() < 0.8),
                )
    for table, columns in (("blocks", "blocker_id, blocked_id"), ("mutes", "muter_id, muted_id")):
        for _ in range(people // 3):
            pair = rng.sample(world.people, 2)
            database.execute(f"INSERT INTO {table} ({columns}) VALUES (%s, %s) ON CONFLICT DO NOTHING", pair)
    originals: list[int] = []
    reposted: set[tuple[UUID, int]] = set()
    for number in range(posts):
        author = rng.choice(world.people)
        kind = rng.random()
        if kind < 0.3 and originals:
            original = rng.choice(originals[-20:])
            if (author, original) not in reposted:
                reposted.add((author, original))
                add_post(database, world, author, repost_of=original)
            continue
        visibility = rng.choices(("public", "unlisted", "private", "direct"), (6, 2, 2, 1))[0]
        reply_to = rng.choice(originals[-20:]) if kind < 0.6 and originals else None
        post = add_post(
            database, world, author, text=f'Post {number} "ü" #tag', visibility=visibility, reply_to=reply_to
        )
        if visibility in ("public", "unlisted"):
            originals.append(post)
    for post in rng.sample(world.posts, posts // 20):
        database.execute("DELETE FROM posts WHERE id = %s", (post,))
    add_engagement(database, world, rng)
    add_filters(database, world, rng)
    database.commit()
    return world


class Standstill:
    """A watermark of flows that stand still; the tests say themselves what has been passed."""

    def poll(self) -> int:
        return 0

    def close(self) -> None:
        pass


@dataclass
class Home:
    """Home timelines with all their parts, as an API process has them."""

    timelines: HomeTimelines
    entities: Entities
    redis: RedisClient
    database: Database
    own_writes: OwnWrites
    tracking: RedisTracking
    cache: DocumentCache


@asynccontextmanager
async def home_timelines(
    settings: Settings, redis_url: str, *, cluster: bool = False, clock: ManualClock | None = None
) -> AsyncIterator[Home]:
    """Home timelines on a Redis and the settings' database, with tracking running."""
    pool = await open_async_pool(settings, max_size=8)
    database = Database(pool)
    redis = RedisClient(RedisAddress.from_url(redis_url), cluster=cluster, timeout=settings.redis_timeout_seconds)
    own_writes = OwnWrites(redis, database, Standstill)
    incremental.use_dialect(settings.database_dialect)
    cache = HomeCache(settings.document_cache_mb << 20)
    documents = Documents(redis, cache, database, PUBLIC_URL)
    timelines, tracking = open_home(
        redis, cache, documents, database, own_writes, settings, PUBLIC_URL, clock or SystemClock()
    )
    entities = Entities(StoredReads(documents, own_writes), PUBLIC_URL)
    task = asyncio.create_task(tracking.run())
    try:
        yield Home(timelines, entities, redis, database, own_writes, tracking, cache)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await timelines.close()
        await redis.close()
        await pool.close()


async def make_ready(home: Home, settings: Settings) -> bytes:
    """Build followers and recent posts as the followers flow does; the generation."""
    return await run(
        readiness.rebuild(settings.followers_chunk, settings.celebrity_threshold, settings.timeline_cap),
        home.redis,
        home.database.rows,
    )


async def warm_up(home: Home, viewers: Iterable[UUID]) -> None:
    """Read everybody's timeline once, so that it is built."""
    for viewer in viewers:
        await home.timelines.read(viewer, Page(20))
    await home.timelines.settle()
