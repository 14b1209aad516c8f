"""`fanline load` and `fanline audit` on the whole system, and faults that the audit must find."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from audit.stores import Stores
from readmodels.effects import Query, command
from readmodels.followers import facts_key
from readmodels.timelines import timeline_key
from tests.conftest import Stack

NAME = "audited"


@pytest.fixture(scope="module")
def loaded(system: Stack) -> Stack:
    done = system.fanline(
        "load", "--people", "60", "--follows", "600", "--posts", "120", "--rate", "40", "--name", NAME
    )
    assert "60 people" in done.stdout
    return system


@pytest.fixture
def stores(loaded: Stack) -> Iterator[Stores]:
    stores = Stores(loaded.settings)
    yield stores
    stores.close()


def audit(system: Stack, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = system.fanline("audit", "--json", "--prefix", f"{NAME}_", *arguments, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def people(stores: Stores) -> list[UUID]:
    rows = stores.rows(Query("SELECT id FROM users WHERE username LIKE %(like)s ORDER BY id", {"like": f"{NAME}\\_%"}))
    return [row["id"] for row in rows]


def someone_with_posts(stores: Stores) -> UUID:
    """Somebody whose warm timeline has more than a header."""
    for person in people(stores):
        if stores.redis([command(timeline_key(person), b"LLEN")])[0] > 3:
            return person
    raise AssertionError("no timeline has posts")


def test_after_a_load_every_read_model_equals_sql(loaded: Stack) -> None:
    report = audit(loaded)
    for name, tally in report.items():
        assert tally["checked"] == tally["equal"], (name, tally)
        assert not any(tally[fault] for fault in ("missing", "extra", "duplicate", "out_of_order"))
    assert report["timelines"]["checked"] >= 60
    # An audit reads, and so warms, what the next one looks at; who has just written is first answered from SQL, and a
    # timeline is built after its first read has been answered.
    for _ in range(6):
        again = audit(loaded)
        assert again["timelines_redis"]["checked"] == again["timelines_redis"]["equal"]
        if again["timelines_redis"]["checked"] >= 60:
            break
    assert again["timelines_redis"]["checked"] >= 60
    assert again["followers"]["checked"] >= 60
    assert again["status_cards"]["checked"] >= 100


def test_an_entry_that_is_gone_from_redis_is_missing_there_and_over_rest(loaded: Stack, stores: Stores) -> None:
    audit(loaded)
    person = someone_with_posts(stores)
    key = timeline_key(person)
    entry = stores.redis([command(key, b"LRANGE", -1, -1)])[0][0]
    stores.redis([command(key, b"LREM", 0, entry)])
    try:
        report = audit(loaded, "--no-wait", code=1)
        assert report["timelines_redis"]["missing"] == 1
        assert report["timelines"]["missing"] == 1
        assert report["timelines_redis"]["examples"][0].startswith(str(person))
    finally:
        stores.redis([command(key, b"RPUSH", entry)])
    audit(loaded)


def test_duplicates_and_disorder_in_redis_are_no_difference(loaded: Stack, stores: Stores) -> None:
    audit(loaded)
    key = timeline_key(someone_with_posts(stores))
    first = stores.redis([command(key, b"LRANGE", 1, 1)])[0][0]
    stores.redis([command(key, b"RPUSH", first, first)])
    audit(loaded)


def test_followers_that_redis_has_too_many_of_are_found(loaded: Stack, stores: Stores) -> None:
    author = people(stores)[0]
    key = facts_key(author) + b":0"
    before = stores.redis([command(key, b"GET")])[0] or b""
    stores.redis([command(key, b"SET", before + bytes(16))])
    try:
        assert audit(loaded, "--no-wait", code=1)["followers"]["extra"] == 1
    finally:
        stores.redis([command(key, b"SET", before)])
    audit(loaded)


def test_a_card_that_says_something_else_is_found(loaded: Stack, stores: Stores) -> None:
    written = "SELECT id FROM posts WHERE author_id = ANY(%(people)s) ORDER BY id DESC LIMIT 1"
    post = stores.rows(Query(written, {"people": people(stores)}))[0]["id"]
    key = b"s:{%d}" % post
    before = stores.redis([command(key, b"GET")])[0]
    stores.redis([command(key, b"SET", before + b"x")])
    try:
        report = audit(loaded, "--no-wait", code=1)
        assert (report["status_cards"]["missing"], report["status_cards"]["extra"]) == (1, 1)
    finally:
        stores.redis([command(key, b"SET", before)])


def test_a_sample_is_as_large_as_asked_for(loaded: Stack) -> None:
    assert audit(loaded, "--sample", "7")["timelines"]["checked"] == 7


def test_the_table_has_a_line_a_read_model(loaded: Stack) -> None:
    lines = loaded.fanline("audit", "--sample", "3").stdout.splitlines()
    assert lines[0].split()[:2] == ["checked", "equal"]
    assert lines[1].split()[:3] == ["timelines", "3", "3"]
