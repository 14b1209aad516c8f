"""The searches: bodies of OpenSearch's `_search` over the layout of readmodels/search.py. Pure.

Ranking multiplies how well the text fits with what is known of the document:

    people  text x (1 + log10(1 + followers))
    posts   text x (1 + 0.5 x log10(1 + popularity) + 0.5 ^ (age in days / 30))

so that among equal texts a thousand followers count four times as much as none, and a new post twice as much as an old
one, while nothing popular is found that does not fit. A handle that is typed whole comes first.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import UUID

from readmodels.search import LANGUAGES
from readmodels.search_text import SearchText

Body = dict[str, Any]
Result = TypeVar("Result")

HALF_LIFE_DAYS = 30
TAGS_SEEN = 100_000
"""Posts that a search for hashtags looks at: enough to rank, few enough to answer in milliseconds."""
_TEXT_FIELDS = ["text", *(f"in.{language}^2" for language in sorted(LANGUAGES))]


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of the results is wanted."""

    limit: int
    offset: int = 0
    min_id: int | None = None
    """Posts only; both exclusive."""
    max_id: int | None = None

    @property
    def by_time(self) -> bool:
        """Whether it is part of a list by time."""
        return self.min_id is not None or self.max_id is not None

    @property
    def upto(self) -> "Page":
        """Everything from the first result to the last of this page, for who mixes results of several sources."""
        return replace(self, limit=self.offset + self.limit, offset=0)

    def cut(self, found: Iterable[Result]) -> list[Result]:
        """This page of the results from the first one, which may be there twice."""
        return list(dict.fromkeys(found))[self.offset : self.offset + self.limit]

    def mixed(self, first: Sequence[int], others: Sequence[int]) -> list[int]:
        """This page of the ids of two sources, each in the page's order from its first result.

        By time when the page is, the newest first, else those of the first source come first.
        """
        found = [*first, *others]
        if self.by_time:
            found.sort(reverse=self.min_id is None)
        page = self.cut(found)
        return sorted(page, reverse=True) if self.by_time else page


def users(text: str, page: Page, hidden: Collection[UUID] = (), only: Collection[UUID] | None = None) -> Body:
    """People whose handle or name begins so, or who say it of themselves; `only` among some.

    Silenced people are found by their whole handle, or among `only`.
    """
    handle = text.strip().removeprefix("@").split("@")[0].lower()
    named: list[Body] = [
        {"constant_score": {"filter": {"term": {"username": handle}}, "boost": 100}},
        {"match": {"username.prefix": {"query": handle, "boost": 4}}},
        {"match": {"display_name": {"query": text, "operator": "and", "boost": 3}}},
        {"match": {"display_name.prefix": {"query": text, "operator": "and", "boost": 2}}},
        {"match": {"note": {"query": text, "operator": "and", "boost": 0.5}}},
    ]
    filters: list[Body] = []
    if only is None:
        filters.append({"bool": {"should": [{"term": {"silenced": False}}, {"term": {"username": handle}}]}})
    else:
        filters.append({"terms": {"id": [str(user) for user in only]}})
    query: Body = {
        "function_score": {
            "query": {
                "bool": {
                    "should": named, "minimum_should_match": 1, "filter": filters, "must_not": _hidden("id", hidden)
                }
            },
            "functions": [{"weight": 1}, {"field_value_factor": {"field": "followers", "modifier": "log1p"}}],
            "score_mode": "sum",
            "boost_mode": "multiply",
        }
    }  # fmt: skip
    return {
        "query": query,
        "sort": ["_score", {"followers": "desc"}, {"id": "asc"}],
        "from": page.offset,
        "size": page.limit,
        "_source": False,
    }


def posts(text: SearchText, page: Page, now_ms: int, hidden: Collection[UUID] = (), author: UUID | None = None) -> Body:
    """Posts that have all words and phrases, and none of those that must not be there; `author` as resolved."""
    must: list[Body] = []
    if text.words:
        must.append(_matching(" ".join(text.words)))
    must += [{"multi_match": {"query": phrase, "type": "phrase", "fields": ["text"]}} for phrase in text.phrases]
    filters: list[Body] = [{"term": {"tags": tag}} for tag in text.tags]
    filters += [{"term": {name: value}} for name, value in text.flags.items()]
    if text.language is not None:
        filters.append({"term": {"language": text.language}})
    if author is not None:
        filters.append({"term": {"author_id": str(author)}})
    if text.since is not None or text.until is not None:
        made = {"gte": text.since, "lt": text.until}
        bounds = {name: int(moment.timestamp() * 1_000) for name, moment in made.items() if moment is not None}
        filters.append({"range": {"created_at": bounds}})
    if page.min_id is not None:
        filters.append({"range": {"id": {"gt": page.min_id}}})
    if page.max_id is not None:
        filters.append({"range": {"id": {"lt": page.max_id}}})
    without: list[Body] = [{"match_phrase": {"text": word}} for word in text.without]
    query: Body = {
        "function_score": {
            "query": {
                "bool": {
                    "must": must or [{"match_all": {}}],
                    "filter": filters,
                    "must_not": [*_hidden("author_id", hidden), *without],
                }
            },
            "functions": [
                {"weight": 1},
                {"field_value_factor": {"field": "popularity", "modifier": "log1p"}, "weight": 0.5},
                {"exp": {"created_at": {"origin": now_ms, "scale": f"{HALF_LIFE_DAYS}d", "decay": 0.5}}},
            ],
            "score_mode": "sum",
            "boost_mode": "multiply",
        }
    }
    # A page that is bounded by an id is part of a list by time.
    newest_first: Sequence[Any] = [{"id": "desc"}]
    if page.min_id is not None:
        newest_first = [{"id": "asc"}]
    return {
        "query": query,
        "sort": newest_first if page.by_time else ["_score", {"id": "desc"}],
        "from": page.offset,
        "size": page.limit,
        "_source": False,
    }


def tags(prefix: str, page: Page) -> Body:
    """Hashtags of public posts that begin so, the most used first: buckets of the aggregation `tags`."""
    name = prefix.strip().removeprefix("#").lower()
    return {
        "query": {"bool": {"filter": [{"prefix": {"tags": {"value": name}}}]}},
        "size": 0,
        "terminate_after": TAGS_SEEN,
        "track_total_hits": False,
        "aggs": {
            "tags": {
                "terms": {
                    "field": "tags",
                    "include": f"{_escape(name)}.*",
                    "size": page.offset + page.limit,
                    "order": [{"_count": "desc"}, {"_key": "asc"}],
                }
            }
        },
    }


def found_ids(answer: Body) -> list[str]:
    """The ids in the answer to a search, in its order."""
    return [hit["_id"] for hit in answer["hits"]["hits"]]


def found_tags(answer: Body) -> list[str]:
    """The hashtags in the answer to a search for them, from the first one."""
    return [bucket["key"] for bucket in answer["aggregations"]["tags"]["buckets"]]


def _matching(words: str) -> Body:
    """All words, in one field: as they are written, or by their stems in the post's own language."""
    return {"multi_match": {"query": words, "fields": _TEXT_FIELDS, "operator": "and", "type": "best_fields"}}


def _hidden(field: str, hidden: Collection[UUID]) -> list[Body]:
    return [{"terms": {field: [str(user) for user in hidden]}}] if hidden else []


def _escape(text: str) -> str:
    """The text as a regular expression of Lucene's."""
    return "".join(
        f"\\{character}" if not (character.isalnum() or character == "_") else character for character in text
    )
