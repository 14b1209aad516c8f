"""The SQL oracle and the simulation's oracle, written twice in two languages, agree on random histories."""

import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from benchmarks.servers import postgres
from readmodels import recents, timelines
from readmodels.effects import Query
from tests.simulation.world import HABITS, Database, PostRow


@pytest.fixture(scope="module")
def connection() -> Iterator[psycopg.Connection[Any]]:
    with (
        postgres() as settings,
        psycopg.connect(settings.database_url.get_secret_value(), row_factory=dict_row) as connected,
    ):
        yield connected


@pytest.fixture(params=range(12))
def world(request: pytest.FixtureRequest, connection: psycopg.Connection[Any]) -> Database:
    dice = random.Random(request.param)
    database = Database([UUID(int=dice.getrandbits(128), version=4) for _ in range(8)])
    for _ in range(250):
        database.change_at_random(dice, list(HABITS))
    write(database, connection)
    return database


def write(database: Database, connection: psycopg.Connection[Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE users CASCADE")
        people = [(user, user.hex[:20]) for user in database.users]
        cursor.executemany("INSERT INTO users (id, username) VALUES (%s, %s)", people)
        follows = [(*edge, show) for edge, show in database.follows.items()]
        cursor.executemany("INSERT INTO follows (follower_id, followee_id, show_reblogs) VALUES (%s, %s, %s)", follows)
        cursor.executemany("INSERT INTO blocks (blocker_id, blocked_id) VALUES (%s, %s)", list(database.blocks))
        cursor.executemany("INSERT INTO mutes (muter_id, muted_id) VALUES (%s, %s)", list(database.mutes))
        cursor.executemany(
            "INSERT INTO posts (id, author_id, visibility, in_reply_to_account_id, repost_of_id)"
            " VALUES (%s, %s, %s, %s, %s)",
            [row(post) for post in sorted(database.posts.values(), key=lambda post: post.id)],
        )
    connection.commit()


def row(post: PostRow) -> tuple[Any, ...]:
    return post.id, post.author, post.visibility, post.in_reply_to_account, post.repost_of


def ids(connection: psycopg.Connection[Any], query: Query) -> list[int]:
    return [found["id"] for found in connection.execute(query.sql, query.parameters)]


def test_the_whole_timeline_is_the_same(world: Database, connection: psycopg.Connection[Any]) -> None:
    for viewer in world.users:
        assert ids(connection, timelines.home_query(viewer, 10_000)) == world.home(viewer)


def test_pages_are_slices_of_the_whole_timeline(world: Database, connection: psycopg.Connection[Any]) -> None:
    for viewer in world.users:
        whole = world.home(viewer)
        if not whole:
            continue
        middle = whole[len(whole) // 2]
        older = [post_id for post_id in whole if post_id < middle]
        newer = [post_id for post_id in whole if post_id > middle]
        assert ids(connection, timelines.home_query(viewer, 5, max_id=middle)) == older[:5]
        assert ids(connection, timelines.home_query(viewer, 5, since_id=middle)) == newer[:5]
        assert ids(connection, timelines.home_query(viewer, 5, min_id=middle)) == newer[::-1][:5]


def test_what_a_timeline_holds_includes_all_that_it_may_show(
    world: Database, connection: psycopg.Connection[Any]
) -> None:
    for viewer in world.users:
        everything = ids(connection, Query(timelines.EVERYTHING, {"viewer": viewer, "limit": 10_000}))
        assert everything == sorted(everything, reverse=True)
        assert set(world.home(viewer)) <= set(everything)


def test_the_newest_posts_of_authors_are_theirs_without_direct_ones(
    world: Database, connection: psycopg.Connection[Any]
) -> None:
    found = connection.execute(recents.NEWEST_BY_AUTHOR, {"authors": world.users, "limit": 4}).fetchall()
    for author in world.users:
        own = sorted(p.id for p in world.posts.values() if p.author == author and p.visibility != "direct")
        assert [post["id"] for post in found if post["author_id"] == author] == own[::-1][:4]
