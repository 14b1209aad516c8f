"""Rows of filters: what a client may ask for, and what is there.

Whoever changes a filter's keywords or posts touches the filter's own row: its change tells the read models.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from msgspec import Struct, field

from api.database import Row, Transaction
from api.errors import not_found, unprocessable
from fanline.content import clean
from readmodels.entities import Entity
from readmodels.filters import ACTIONS, CONTEXTS, filter_entity

MAX_TITLE, MAX_KEYWORD = 256, 512
# Every status that is shown is matched against all of them.
MAX_FILTERS, MAX_KEYWORDS, MAX_POSTS = 100, 200, 200
# A century: longer than anybody waits, and within what a timestamp holds.
MAX_SECONDS = 100 * 366 * 86_400

LOCK_PERSON = "SELECT id FROM users WHERE id = %(user_id)s FOR NO KEY UPDATE"
COUNT_FILTERS = "SELECT count(*) AS number FROM filters WHERE user_id = %(user_id)s"
INSERT_FILTER = """
INSERT INTO filters (id, user_id, title, contexts, action, expires_at)
VALUES (%(id)s, %(user_id)s, %(title)s, %(contexts)s::text[], %(action)s, %(expires_at)s)
"""
SELECT_FILTERS = """
SELECT id, title, contexts, action, expires_at FROM filters
WHERE user_id = %(user_id)s AND (%(id)s::uuid IS NULL OR id = %(id)s)
ORDER BY created_at, id
"""
SELECT_KEYWORDS = """
SELECT id, filter_id, keyword, whole_word FROM filter_keywords WHERE filter_id = ANY(%(ids)s::uuid[]) ORDER BY id
"""
SELECT_POSTS = "SELECT id, filter_id, post_id FROM filter_posts WHERE filter_id = ANY(%(ids)s::uuid[]) ORDER BY id"
TOUCH = "UPDATE filters SET updated_at = clock_timestamp() WHERE id = %(id)s AND user_id = %(user_id)s"
COUNT_PARTS = """
SELECT (SELECT count(*) FROM filter_keywords WHERE filter_id = %(id)s) AS keywords,
       (SELECT count(*) FROM filter_posts WHERE filter_id = %(id)s) AS posts
"""
INSERT_KEYWORD = """
INSERT INTO filter_keywords (id, filter_id, keyword, whole_word)
VALUES (%(id)s, %(filter_id)s, %(keyword)s, %(whole_word)s)
"""
UPDATE_KEYWORD = """
UPDATE filter_keywords SET keyword = coalesce(%(keyword)s, keyword), whole_word = coalesce(%(whole_word)s, whole_word)
WHERE id = %(id)s AND filter_id = %(filter_id)s
"""
DELETE_KEYWORD = "DELETE FROM filter_keywords WHERE id = %(id)s AND filter_id = %(filter_id)s"


class Keyword(Struct):
    """One keyword of a form: new, or with an `id` one that is changed or removed."""

    id: str | None = None
    keyword: str | None = None
    whole_word: bool | None = None
    destroy: bool = field(name="_destroy", default=False)


async def load_filters(transaction: Transaction, user_id: UUID, identifier: UUID | None = None) -> list[Entity]:
    """The V2::Filter entities of a person, all or one; in the order in which they were made."""
    rows = await transaction.rows(SELECT_FILTERS, {"user_id": user_id, "id": identifier})
    ids = {"ids": [row["id"] for row in rows]}
    keywords = await transaction.rows(SELECT_KEYWORDS, ids) if rows else []
    posts = await transaction.rows(SELECT_POSTS, ids) if rows else []
    return [
        filter_entity(row["id"], row["title"], row["contexts"], row["action"], row["expires_at"])
        | {
            "keywords": [keyword_entity(each) for each in keywords if each["filter_id"] == row["id"]],
            "statuses": [post_entity(each) for each in posts if each["filter_id"] == row["id"]],
        }
        for row in rows
    ]


async def load_filter(transaction: Transaction, user_id: UUID, identifier: UUID) -> Entity:
    """One filter; raises `ApiError` 404."""
    for entity in await load_filters(transaction, user_id, identifier):
        return entity
    raise not_found()


def keyword_entity(row: Row) -> Entity:
    """The FilterKeyword entity."""
    return {"id": str(row["id"]), "keyword": row["keyword"], "whole_word": row["whole_word"]}


def post_entity(row: Row) -> Entity:
    """The FilterStatus entity."""
    return {"id": str(row["id"]), "status_id": str(row["post_id"])}


async def insert_filter(transaction: Transaction, user_id: UUID, columns: Row) -> UUID:
    """Insert a filter of checked columns; raises `ApiError` 422 when there are too many."""
    await transaction.execute(LOCK_PERSON, {"user_id": user_id})
    counted = await transaction.row(COUNT_FILTERS, {"user_id": user_id})
    if counted is not None and counted["number"] >= MAX_FILTERS:
        raise unprocessable(f"Validation failed: at most {MAX_FILTERS} filters are allowed")
    identifier = uuid4()
    await transaction.execute(INSERT_FILTER, {**columns, "id": identifier, "user_id": user_id})
    return identifier


async def update_filter(transaction: Transaction, user_id: UUID, identifier: UUID, columns: Row) -> None:
    """Change some columns of a filter, and hold its row; raises `ApiError` 404."""
    await touch(transaction, user_id, identifier)
    if columns:
        assignments = ", ".join(f"{column} = %({column})s" for column in columns)
        await transaction.execute(f"UPDATE filters SET {assignments} WHERE id = %(id)s", {**columns, "id": identifier})


async def touch(transaction: Transaction, user_id: UUID, identifier: UUID) -> None:
    """Say that something of the filter changes, and hold its row; raises `ApiError` 404."""
    if not await transaction.execute(TOUCH, {"id": identifier, "user_id": user_id}):
        raise not_found()


async def put_keywords(transaction: Transaction, filter_id: UUID, keywords: Iterable[Keyword]) -> list[UUID]:
    """Insert, change and remove keywords of a filter whose row is held; the ids of those inserted."""
    inserted: list[UUID] = []
    for each in keywords:
        row: Row = {"id": parse_id(each.id), "filter_id": filter_id, "keyword": None, "whole_word": each.whole_word}
        if each.keyword is not None or each.id is None:
            row["keyword"] = _keyword(each.keyword)
        if each.id is None:
            inserted.append(uuid4())
            row |= {"id": inserted[-1], "whole_word": each.whole_word is not False}
            await transaction.execute(INSERT_KEYWORD, row)
        elif not await transaction.execute(DELETE_KEYWORD if each.destroy else UPDATE_KEYWORD, row):
            raise not_found()
    await check_numbers(transaction, filter_id)
    return inserted


async def check_numbers(transaction: Transaction, filter_id: UUID) -> None:
    """Raises `ApiError` 422 when the filter has too many keywords or posts by now."""
    counted = await transaction.row(COUNT_PARTS, {"id": filter_id})
    if counted is not None and (counted["keywords"] > MAX_KEYWORDS or counted["posts"] > MAX_POSTS):
        raise unprocessable(f"Validation failed: a filter has at most {MAX_KEYWORDS} keywords and {MAX_POSTS} statuses")


def parse_id(text: str | None) -> UUID | None:
    """An id of a request; raises `ApiError` 404, as an id of another form belongs to nothing."""
    try:
        return None if text is None else UUID(text)
    except ValueError as error:
        raise not_found() from error


def checked_title(title: str | None) -> str:
    """A clean title; raises `ApiError` 422."""
    text = clean(title or "").replace("\n", " ")
    if not text:
        raise unprocessable("Validation failed: Title can't be blank")
    if len(text) > MAX_TITLE:
        raise unprocessable(f"Validation failed: Title is too long (maximum is {MAX_TITLE} characters)")
    return text


def checked_contexts(contexts: Sequence[str] | None) -> list[str]:
    """The contexts, each once; raises `ApiError` 422."""
    given = list(dict.fromkeys(contexts or ()))
    if not given:
        raise unprocessable("Validation failed: Context can't be blank")
    _one_of(given, CONTEXTS, "Context None or invalid context supplied")
    return given


def checked_action(action: str) -> str:
    """The action; raises `ApiError` 422."""
    _one_of([action], ACTIONS, f"Action must be one of {', '.join(ACTIONS)}")
    return action


def checked_end(expires_in: str | int | None) -> datetime | None:
    """When a filter ends, of seconds from now (nothing: never); raises `ApiError` 422."""
    if expires_in in (None, ""):
        return None
    try:
        seconds = int(str(expires_in))
    except ValueError as error:
        raise unprocessable("Validation failed: expires_in must be a number of seconds") from error
    if not 0 <= seconds <= MAX_SECONDS:
        raise unprocessable("Validation failed: expires_in is out of range")
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _keyword(text: str | None) -> str:
    word = clean(text or "").replace("\n", " ")
    if not word:
        raise unprocessable("Validation failed: Keyword can't be blank")
    if len(word) > MAX_KEYWORD:
        raise unprocessable(f"Validation failed: Keyword is too long (maximum is {MAX_KEYWORD} characters)")
    return word


def _one_of(given: Collection[str], allowed: Collection[str], problem: str) -> None:
    if not set(given) <= set(allowed):
        raise unprocessable(f"Validation failed: {problem}")
