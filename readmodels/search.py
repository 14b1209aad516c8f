"""Search: what OpenSearch holds of people and public posts, and what SQL says that it should.

Layout: an index a kind, behind two aliases. `<prefix>-users` and `<prefix>-posts` are read and name one index;
`<prefix>-users-write` and `<prefix>-posts-write` are written and name two while a new one is built
(dataflows/search_rebuild.py). Settings and mappings are the files of readmodels/search_indexes.

    users   everybody who is not suspended; the profile's text only of people who want to be discovered
    posts   public posts, no reposts, of authors who let them be indexed and are neither suspended nor silenced; the
            text in a field for all languages and in that of its own language; hashtags; author by id alone

A document is a function of the database, but for its popularity (followers; favourites and reposts), which only ranks:
it is written anew when it crosses a power of four, and whenever else the document is written, so it is within a factor
of four of the truth and a storm of likes costs a handful of writes. A document's version is a token that is taken
before the database is asked (readmodels/documents.py): the last one written has seen every change that anybody wrote
for. Deleted documents are remembered for an hour (`gc_deletes`), longer than any write is under way.

Author ids are all that ties a post to its author, so a new name rewrites one document. What hides or shows all posts of
an author (`indexable`, silenced, suspended) is a change of a row of `users`: each one writes the author's posts anew,
page by page.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from uuid import UUID

import msgspec

from readmodels.documents import TOKEN_KEY, Id, Row
from readmodels.effects import Effects, Query, Redis, call
from readmodels.indexed import IndexWrite

PAGE = 500
"""Documents in one query and one request: half a megabyte of typical posts."""

COUNTED = 65_536
"""Popularity is counted no further, so that a celebrity's costs milliseconds."""

USERS_BY_ID = f"""
SELECT u.id, u.username, u.display_name, u.note, u.discoverable, u.bot, u.silenced_at IS NOT NULL AS silenced,
       u.created_at,
       (SELECT count(*) FROM (SELECT 1 FROM follows f WHERE f.followee_id = u.id LIMIT {COUNTED}) counted) AS followers
FROM users u
WHERE u.id = ANY(%(ids)s::uuid[]) AND u.suspended_at IS NULL
"""

_POPULARITY = f"""
       (SELECT count(*) FROM (SELECT 1 FROM likes l WHERE l.post_id = p.id LIMIT {COUNTED}) counted)
       + (SELECT count(*) FROM (SELECT 1 FROM posts r WHERE r.repost_of_id = p.id LIMIT {COUNTED}) counted)"""

_SEARCHABLE = """p.visibility = 'public' AND p.repost_of_id IS NULL AND author.indexable
  AND author.suspended_at IS NULL AND author.silenced_at IS NULL"""

POSTS_BY_ID = f"""
SELECT p.id, p.author_id, p.text, p.spoiler_text, p.language, p.sensitive, p.created_at,
       p.in_reply_to_account_id IS NOT NULL AS is_reply,
       ARRAY(SELECT h.name FROM post_hashtags ph JOIN hashtags h ON h.id = ph.hashtag_id
             WHERE ph.post_id = p.id ORDER BY h.name) AS tags,
       EXISTS (SELECT 1 FROM media m WHERE m.post_id = p.id) AS has_media,
       EXISTS (SELECT 1 FROM polls q WHERE q.post_id = p.id) AS has_poll,
       {_POPULARITY} AS popularity
FROM posts p JOIN users author ON author.id = p.author_id
WHERE p.id = ANY(%(ids)s::bigint[]) AND {_SEARCHABLE}
"""

USERS_AFTER = """
SELECT id FROM users WHERE id > %(after)s::uuid ORDER BY id LIMIT %(limit)s
"""
POSTS_AFTER = """
SELECT id FROM posts WHERE id > %(after)s AND visibility = 'public' AND repost_of_id IS NULL ORDER BY id LIMIT %(limit)s
"""
POSTS_OF_AUTHOR_AFTER = """
SELECT id FROM posts
WHERE author_id = %(author)s AND id > %(after)s AND visibility = 'public' AND repost_of_id IS NULL
ORDER BY id LIMIT %(limit)s
"""

USERS_TOTAL = "SELECT count(*) AS total FROM users WHERE suspended_at IS NULL"
POSTS_TOTAL = f"SELECT count(*) AS total FROM posts p JOIN users author ON author.id = p.author_id WHERE {_SEARCHABLE}"

USERS_POPULARITY = f"""
SELECT u.id,
       (SELECT count(*) FROM (SELECT 1 FROM follows f WHERE f.followee_id = u.id LIMIT {COUNTED}) counted) AS popularity
FROM users u WHERE u.id = ANY(%(ids)s::uuid[])
"""
POSTS_POPULARITY = f"""
SELECT p.id, {_POPULARITY} AS popularity
FROM posts p WHERE p.id = ANY(%(ids)s::bigint[]) AND p.visibility = 'public' AND p.repost_of_id IS NULL
"""


@dataclass(frozen=True, slots=True)
class Searchable:
    """A kind of document: its index, how it is read from the database and what it looks like."""

    name: str
    sql: str
    """Takes `%(ids)s`; one row for each thing that should be found."""
    after: str
    """A page of ids (`%(limit)s`) after `%(after)s`, of all that may have to be found."""
    first: Id
    """An id that comes before all others."""
    total: str
    popularity_sql: str
    popularity_field: str
    document: Callable[[Row], dict[str, Any]]

    def read_alias(self, prefix: str) -> str:
        """What searches name."""
        return f"{prefix}-{self.name}"

    def write_alias(self, prefix: str) -> str:
        """What writers name."""
        return f"{prefix}-{self.name}-write"

    def index_body(self) -> dict[str, Any]:
        """Settings and mappings of the index, from its file."""
        text = files("readmodels").joinpath("search_indexes", f"{self.name}.json").read_text("utf-8")
        body: dict[str, Any] = json.loads(text)
        return body


def _user_document(row: Row) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "username": row["username"],
        "display_name": row["display_name"],
        "note": row["note"] if row["discoverable"] else "",
        "discoverable": row["discoverable"],
        "silenced": row["silenced"],
        "bot": row["bot"],
        "created_at": _milliseconds(row),
        "followers": row["followers"],
    }


def _post_document(row: Row) -> dict[str, Any]:
    text = "\n".join(filter(None, (row["spoiler_text"], row["text"])))
    language = primary_language(row["language"])
    analyzed = ANALYZED_AS.get(language, language) if language else None
    return {
        "id": row["id"],
        "author_id": str(row["author_id"]),
        "text": text,
        "in": {analyzed: text} if analyzed in LANGUAGES else {},
        "tags": list(row["tags"]),
        "language": language,
        "is_reply": row["is_reply"],
        "sensitive": row["sensitive"],
        "has_media": row["has_media"],
        "has_poll": row["has_poll"],
        "created_at": _milliseconds(row),
        "popularity": row["popularity"],
    }


def _milliseconds(row: Row) -> int:
    return int(row["created_at"].timestamp() * 1_000)


def primary_language(tag: str | None) -> str | None:
    """The language of a BCP 47 tag: `pt` of `pt-BR`."""
    return tag.split("-")[0].split("_")[0].lower() if tag else None


USERS = Searchable(
    "users", USERS_BY_ID, USERS_AFTER, UUID(int=0), USERS_TOTAL, USERS_POPULARITY, "followers", _user_document
)
POSTS = Searchable("posts", POSTS_BY_ID, POSTS_AFTER, 0, POSTS_TOTAL, POSTS_POPULARITY, "popularity", _post_document)
KINDS = (USERS, POSTS)
"""Every kind of document."""

ANALYZED_AS = {"nb": "no", "nn": "no"}
"""Languages that are analyzed as another: Bokmål and Nynorsk have an analyzer together, as Norwegian."""
LANGUAGES = frozenset(POSTS.index_body()["mappings"]["properties"]["in"]["properties"])
"""The languages that have an analyzer of their own; other texts are found by their words as they are written."""


def popularity_step(count: int) -> int:
    """0, then 1 for 1 to 3, 2 for 4 to 15, 3 for 16 to 63 and so on."""
    return (count.bit_length() + 1) // 2


@dataclass(slots=True)
class Stale:
    """What some changes have made stale."""

    documents: dict[tuple[Searchable, Id], Any]
    """Documents to write anew, each with its cause."""
    touched: dict[tuple[Searchable, Id], list[Any]]
    """Documents whose popularity has changed, each with how often (int) and the last cause."""
    authors: dict[UUID, Any]
    """People whose posts are all to be written anew, each with its cause."""

    @classmethod
    def nothing(cls) -> "Stale":
        """Nothing is stale."""
        return cls({}, {}, {})

    def add(self, table: str, op: str, row: Mapping[str, Any], cause: Any = None) -> None:
        """Take in a change of a row; raises `LookupError`, `TypeError` or `ValueError` for a wrong one."""
        match table:
            case "users":
                user = _uuid(row["id"])
                self.documents[USERS, user] = cause
                # A deleted author's posts are deleted one by one; nobody has posted before signing up.
                if op == "u":
                    self.authors[user] = cause
            case "posts":
                if row["repost_of_id"] is not None:
                    self._touch(POSTS, row["repost_of_id"], cause)
                # A post that is not public when it is made was never found; if it is made public, another change tells.
                elif op != "c" or row["visibility"] == "public":
                    self.documents[POSTS, int(row["id"])] = cause
            case "likes":
                self._touch(POSTS, row["post_id"], cause)
            case "follows":
                self._touch(USERS, _uuid(row["followee_id"]), cause)
            case _:
                raise ValueError(f"Search knows no table {table}.")

    def _touch(self, kind: Searchable, identifier: Id, cause: Any) -> None:
        found = self.touched.setdefault((kind, identifier), [0, cause])
        found[0] += 1
        found[1] = cause


def refresh(stale: Stale, prefix: str) -> Iterator[Effects[list[IndexWrite]]]:
    """The generators that make the writes for what is stale, to be driven in their order, each with few writes.

    The first one writes the documents themselves, the others pages of the posts of authors.
    """
    yield _refresh_documents(stale, prefix)
    for author, cause in stale.authors.items():
        yield from _pages_of(author, prefix, cause)


def load(kind: Searchable, ids: Sequence[Id]) -> Effects[dict[Id, dict[str, Any]]]:
    """The oracle: the documents that the index should have of these ids."""
    rows = yield Query(kind.sql, {"ids": list(ids)})
    return {row["id"]: kind.document(row) for row in rows}


def writes(
    kind: Searchable, ids: Collection[Id], alias: str, causes: Mapping[Id, Any] | None = None
) -> Effects[list[IndexWrite]]:
    """What the index should have of these ids, absent ones included; the version is older than the answer."""
    made: list[IndexWrite] = []
    ordered = list(ids)
    for start in range(0, len(ordered), PAGE):
        page = ordered[start : start + PAGE]
        (token,) = yield Redis([call(b"document_token", [TOKEN_KEY])])
        documents = yield from load(kind, page)
        for identifier in page:
            document = documents.get(identifier)
            body = None if document is None else _encode(document)
            cause = None if causes is None else causes.get(identifier)
            made.append(IndexWrite(alias, str(identifier), int(token), body, cause))
    return made


def _refresh_documents(stale: Stale, prefix: str) -> Effects[list[IndexWrite]]:
    made: list[IndexWrite] = []
    for kind in KINDS:
        causes = {identifier: cause for (of, identifier), cause in stale.documents.items() if of is kind}
        touched = {
            identifier: found
            for (of, identifier), found in stale.touched.items()
            if of is kind and identifier not in causes
        }
        if touched:
            rows = yield Query(kind.popularity_sql, {"ids": list(touched)})
            for row in rows:
                times, cause = touched[row["id"]]
                if crosses(row["popularity"], times):
                    causes[row["id"]] = cause
        if causes:
            made += yield from writes(kind, causes, kind.write_alias(prefix), causes)
    return made


def crosses(popularity: int, times: int) -> bool:
    """Whether a popularity that has moved this many times, up or down, may have crossed a power of four."""
    step = popularity_step(popularity)
    return popularity_step(max(0, popularity - times)) != step or popularity_step(popularity + times) != step


def _pages_of(author: UUID, prefix: str, cause: Any) -> Iterator[Effects[list[IndexWrite]]]:
    """Page after page of an author's posts; the next page is known when the one before has been driven."""
    after: int | None = 0

    def page() -> Effects[list[IndexWrite]]:
        nonlocal after
        rows = yield Query(POSTS_OF_AUTHOR_AFTER, {"author": author, "after": after, "limit": PAGE})
        ids: list[int] = [row["id"] for row in rows]
        after = ids[-1] if len(ids) == PAGE else None
        return (yield from writes(POSTS, ids, POSTS.write_alias(prefix), dict.fromkeys(ids, cause)))

    while after is not None:
        yield page()


_encode = msgspec.json.Encoder().encode


def same(document: Mapping[str, Any], other: Mapping[str, Any], kind: Searchable) -> bool:
    """Whether two documents say the same, their popularity apart."""
    return _essence(document, kind) == _essence(other, kind)


def _essence(document: Mapping[str, Any], kind: Searchable) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != kind.popularity_field}


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)
