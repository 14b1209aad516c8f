"""What search makes of rows and of texts, without a server."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from readmodels import search
from readmodels.effects import Query, Redis, drive
from readmodels.search import LANGUAGES, POSTS, USERS, Stale, crosses, popularity_step, refresh, same
from readmodels.search_queries import Page, found_tags, posts, tags, users
from readmodels.search_text import MAX_TERMS, parse

ADA = UUID("00000000-0000-4000-8000-000000000001")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)


def post_row(**columns: Any) -> dict[str, Any]:
    return {
        "id": 7, "author_id": ADA, "text": "Hallo", "spoiler_text": "", "language": "de-AT", "sensitive": False,
        "created_at": NOW, "is_reply": False, "tags": ["a"], "has_media": False, "has_poll": False, "popularity": 3,
    } | columns  # fmt: skip


def row_of(table: str, **columns: Any) -> dict[str, Any]:
    defaults: dict[str, dict[str, Any]] = {
        "posts": {"id": 7, "author_id": str(ADA), "visibility": "public", "repost_of_id": None},
        "users": {"id": str(ADA)},
        "likes": {"user_id": str(uuid4()), "post_id": 7},
        "follows": {"follower_id": str(uuid4()), "followee_id": str(ADA)},
    }
    return defaults[table] | columns


def made(stale: Stale, answers: dict[str, list[dict[str, Any]]]) -> list[search.IndexWrite]:
    """The writes for what is stale, where the database answers so."""
    tokens = iter(range(100, 200))

    def redis(batch: Redis) -> list[Any]:
        return [next(tokens) for _ in batch.commands]

    def query(asked: Query) -> list[dict[str, Any]]:
        return [row for row in answers.get(asked.sql, []) if "id" not in asked.parameters or row]

    return [write for effects in refresh(stale, "x") for write in drive(effects, redis, query)]


def test_a_post_is_indexed_for_all_languages_and_for_its_own() -> None:
    document = POSTS.document(post_row(spoiler_text="Warnung"))
    assert document["text"] == "Warnung\nHallo"
    assert document["in"] == {"de": "Warnung\nHallo"}
    assert document["language"] == "de"
    assert document["created_at"] == int(NOW.timestamp() * 1_000)
    assert POSTS.document(post_row(language="tlh"))["in"] == {}
    for norwegian in ("nb", "nn-NO", "no"):
        document = POSTS.document(post_row(language=norwegian))
        assert (document["in"], document["language"]) == ({"no": "Hallo"}, norwegian[:2])
    assert POSTS.document(post_row(language=None))["language"] is None


def test_documents_have_the_fields_of_their_index() -> None:
    user = {
        "id": ADA, "username": "ada", "display_name": "Ada", "note": "me", "discoverable": False, "bot": False,
        "silenced": False, "created_at": NOW, "followers": 1,
    }  # fmt: skip
    assert USERS.document(user)["note"] == ""
    for kind, document in ((USERS, USERS.document(user)), (POSTS, POSTS.document(post_row()))):
        fields = kind.index_body()["mappings"]["properties"]
        assert fields.keys() == document.keys()
    assert {"en", "de", "fr", "es", "ja"} <= LANGUAGES


def test_popularity_makes_no_difference_between_documents_and_everything_else_does() -> None:
    document = POSTS.document(post_row())
    assert same(document, document | {"popularity": 4_000}, POSTS)
    assert not same(document, document | {"text": "?"}, POSTS)


def test_what_the_database_has_is_written_and_what_it_has_not_is_deleted_in_a_version_taken_before() -> None:
    stale = Stale.nothing()
    stale.add("posts", "c", row_of("posts"), "first")
    stale.add("posts", "d", row_of("posts", id=8), "second")
    writes = made(stale, {search.POSTS_BY_ID: [post_row()]})
    assert [(write.alias, write.id, write.version, write.document is None, write.cause) for write in writes] == [
        ("x-posts-write", "7", 100, False, "first"),
        ("x-posts-write", "8", 100, True, "second"),
    ]


def test_a_post_that_is_not_public_when_it_is_made_is_not_looked_at_but_its_changes_are() -> None:
    stale = Stale.nothing()
    stale.add("posts", "c", row_of("posts", visibility="private"))
    assert not stale.documents
    stale.add("posts", "u", row_of("posts", visibility="private"))
    assert stale.documents.keys() == {(POSTS, 7)}


def test_a_change_of_a_person_writes_all_their_posts_page_by_page() -> None:
    stale = Stale.nothing()
    stale.add("users", "c", row_of("users"))
    assert not stale.authors
    stale.add("users", "u", row_of("users"))
    pages = [[{"id": number} for number in range(1, search.PAGE + 1)], [{"id": search.PAGE + 1}]]
    asked = []

    def query(query: Query) -> list[dict[str, Any]]:
        if query.sql == search.POSTS_OF_AUTHOR_AFTER:
            asked.append(query.parameters["after"])
            return pages[len(asked) - 1]
        return []

    writes = [
        write
        for effects in refresh(stale, "x")
        for write in drive(effects, lambda batch: [1 for _ in batch.commands], query)
    ]
    assert asked == [0, search.PAGE]
    assert len(writes) == 1 + search.PAGE + 1
    assert all(write.document is None for write in writes)


@pytest.mark.parametrize(("count", "step"), [(0, 0), (1, 1), (3, 1), (4, 2), (15, 2), (16, 3), (63, 3), (64, 4)])
def test_popularity_moves_in_steps_of_four(count: int, step: int) -> None:
    assert popularity_step(count) == step


def test_a_like_writes_the_post_only_when_its_popularity_crosses_a_step() -> None:
    assert [count for count in range(1, 100) if crosses(count, 1)] == [1, 3, 4, 15, 16, 63, 64]
    stale = Stale.nothing()
    for _ in range(3):
        stale.add("likes", "c", row_of("likes"), "like")
    assert not made(stale, {search.POSTS_POPULARITY: [{"id": 7, "popularity": 12}]})
    writes = made(stale, {search.POSTS_POPULARITY: [{"id": 7, "popularity": 17}], search.POSTS_BY_ID: [post_row()]})
    assert [(write.id, write.cause) for write in writes] == [("7", "like")]


def test_reposts_and_follows_touch_what_they_are_about() -> None:
    stale = Stale.nothing()
    stale.add("posts", "c", row_of("posts", id=9, repost_of_id=7))
    stale.add("follows", "d", row_of("follows"))
    assert stale.touched.keys() == {(POSTS, 7), (USERS, ADA)}
    assert not stale.documents


@pytest.mark.parametrize("table", ["media", ""])
def test_another_table_is_no_change_for_search(table: str) -> None:
    with pytest.raises(ValueError, match="no table"):
        Stale.nothing().add(table, "c", {})


def test_a_search_is_taken_apart() -> None:
    found = parse('cats "big dogs" -"small ones" -mice #Pets from:@Ada@here language:de-AT has:media -is:reply')
    assert (found.words, found.phrases, found.without, found.tags) == (
        ["cats"],
        ["big dogs"],
        ["small ones", "mice"],
        ["pets"],
    )
    assert (found.author, found.language) == ("ada", "de")
    assert found.flags == {"has_media": True, "is_reply": False}


def test_days_bound_a_search() -> None:
    day, next_day = datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    found = [parse(f"{name}:2026-01-31") for name in ("before", "after", "during")]
    assert [(each.since, each.until) for each in found] == [(None, day), (next_day, None), (day, next_day)]


@pytest.mark.parametrize("text", ["before:soon", "has:everything", "time:now", "-from:ada"])
def test_what_is_no_operator_is_a_word(text: str) -> None:
    found = parse(text)
    assert [*found.words, *found.without] == [text.removeprefix("-")]


def test_nothing_but_signs_is_an_empty_search_and_a_very_long_one_is_cut() -> None:
    assert parse('""').is_empty
    assert parse("   ").is_empty
    assert len(parse("a " * 1_000).words) == MAX_TERMS


def test_hidden_people_are_left_out_of_every_search() -> None:
    hidden = str(ADA)
    query = posts(parse("x"), Page(10), 0, [ADA])["query"]["function_score"]["query"]["bool"]
    assert query["must_not"] == [{"terms": {"author_id": [hidden]}}]
    query = users("x", Page(10), [ADA])["query"]["function_score"]["query"]["bool"]
    assert query["must_not"] == [{"terms": {"id": [hidden]}}]


def test_a_hashtags_name_is_no_regular_expression() -> None:
    include = tags("#a.*b", Page(10))["aggs"]["tags"]["terms"]["include"]
    assert include == r"a\.\*b.*"
    answer = {"aggregations": {"tags": {"buckets": [{"key": "a"}, {"key": "b"}, {"key": "c"}]}}}
    assert found_tags(answer) == ["a", "b", "c"]


def test_pages_of_mixed_results_show_each_of_them_once_and_in_order() -> None:
    """The viewer's own posts come from the database, and perhaps from the index as well."""
    own, index = [9, 7, 5], [1, 7, 3, 9, 2]
    assert [Page(2, offset).mixed(own, index) for offset in (0, 2, 4, 6)] == [[9, 7], [5, 1], [3, 2], []]

    def below(source: list[int], limit: int) -> list[int]:
        return sorted((post for post in source if post < limit), reverse=True)[:2]

    shown = [10]
    while page := Page(2, max_id=shown[-1]).mixed(below(own, shown[-1]), below(index, shown[-1])):
        shown += page
    assert shown == [10, 9, 7, 5, 3, 2, 1]
    up = Page(2, min_id=4)
    assert up.mixed([5, 7], [7, 9]) == [7, 5]
    assert Page(2, offset=2, min_id=4).mixed([5, 7, 9], [7, 9]) == [9]
    assert up.upto == up
    assert Page(2, 4, 5, 6).upto == Page(6, 0, 5, 6)
