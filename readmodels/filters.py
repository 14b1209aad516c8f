"""What a person does not want to read: Mastodon's filters, matched against statuses. Pure.

A filter has keywords and single posts, contexts (`home`, `notifications`, `public`, `thread`, `account`), an action
(`warn`, `hide`, `blur`) and perhaps an end. Who shows a status says which filters match it, and the client acts on it;
only who decides for the client, as notifications do, asks `hides`.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from html import unescape
from typing import Any

from readmodels.entities import Entity, timestamp

CONTEXTS = ("home", "notifications", "public", "thread", "account")
ACTIONS = ("warn", "hide", "blur")


def filters_sql(user: str) -> str:
    """An expression of SQL: the filters of a person (an expression) as JSON, the argument of `parse_filters`."""
    return f"""(SELECT coalesce(jsonb_agg(jsonb_build_object(
           'id', f.id, 'title', f.title, 'contexts', f.contexts, 'action', f.action,
           'expires_ms', coalesce((extract(epoch FROM f.expires_at) * 1000)::bigint, 0),
           'keywords', (SELECT coalesce(jsonb_agg(jsonb_build_array(k.keyword, k.whole_word) ORDER BY k.id), '[]')
                        FROM filter_keywords k WHERE k.filter_id = f.id),
           'posts', (SELECT coalesce(jsonb_agg(i.post_id::text ORDER BY i.post_id), '[]')
                     FROM filter_posts i WHERE i.filter_id = f.id)
           ) ORDER BY f.created_at, f.id), '[]')
        FROM filters f WHERE f.user_id = {user})"""


FILTERS_OF = f"SELECT {filters_sql('%(viewer)s::uuid')} AS filters"
"""The filters of the viewer, one row."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter, ready to match."""

    entity: Entity
    """The V2::Filter entity without keywords and statuses."""
    contexts: frozenset[str]
    action: str
    expires_ms: int
    """Unix milliseconds at which it ends; 0: never."""
    pattern: re.Pattern[str] | None
    folded: tuple[str, ...]
    """The keywords folded: a text whose folded form has none of them needs no pattern."""
    posts: frozenset[int]


Filters = tuple[Filter, ...]
NO_FILTERS: Filters = ()


def parse_filters(rows: Iterable[dict[str, Any]]) -> Filters:
    """Filters of what `filters_sql` gives."""
    return tuple(
        Filter(
            entity=filter_entity(
                row["id"],
                row["title"],
                row["contexts"],
                row["action"],
                datetime.fromtimestamp(row["expires_ms"] / 1000, UTC) if row["expires_ms"] else None,
            ),
            contexts=frozenset(row["contexts"]),
            action=row["action"],
            expires_ms=row["expires_ms"],
            pattern=_pattern(tuple((word, whole) for word, whole in row["keywords"])),
            folded=tuple(_fold(word) for word, _ in row["keywords"]),
            posts=frozenset(int(post) for post in row["posts"]),
        )
        for row in rows
    )


def filter_entity(
    identifier: object, title: str, contexts: Sequence[str], action: str, expires_at: datetime | None
) -> Entity:
    """The V2::Filter entity without `keywords` and `statuses`, as it is part of a FilterResult."""
    return {
        "id": str(identifier),
        "title": title,
        "context": list(contexts),
        "expires_at": None if expires_at is None else timestamp(expires_at),
        "filter_action": action,
    }


def filter_results(filters: Filters, text: str, post_ids: Collection[int], now_ms: int) -> list[Entity]:
    """The FilterResult entities of a status: its `filtered`.

    `text` is what `searchable_text` gives, `post_ids` the status' id and that of what it reposts.
    """
    results = []
    folded = _fold(text)
    for each in filters:
        if each.expires_ms and each.expires_ms <= now_ms:
            continue
        found = None
        # Hardly any keyword is in hardly any text, and looking for one is a hundred times quicker than the pattern.
        if each.pattern is not None and any(word in folded for word in each.folded):
            found = each.pattern.search(text)
        posts = [str(post_id) for post_id in post_ids if post_id in each.posts]
        if found is not None or posts:
            results.append(
                {
                    "filter": each.entity,
                    "keyword_matches": None if found is None else [found.group()],
                    "status_matches": posts or None,
                }
            )
    return results


def hides(filters: Filters, context: str, text: str, post_ids: Collection[int], now_ms: int) -> bool:
    """Whether a status must not appear at all in a context; the arguments are those of `filter_results`."""
    hiding = tuple(each for each in filters if each.action == "hide" and context in each.contexts)
    return bool(hiding and filter_results(hiding, text, post_ids, now_ms))


_BREAKS = re.compile(r"<br />|</p>")
_TAGS = re.compile(r"<[^>]*>")


def searchable_text(content: str, spoiler_text: str, poll_titles: Iterable[str] = ()) -> str:
    """What keywords are looked for in: content warning, text and poll of a Status entity (the original's, of a repost).

    `content` is the entity's HTML, whose links keep their hidden parts, so that addresses match whole.
    """
    text = unescape(_TAGS.sub("", _BREAKS.sub("\n", content)))
    return "\n".join((spoiler_text, text, *poll_titles))


def text_of(status: Entity) -> str:
    """`searchable_text` of a Status entity that is no repost."""
    poll = status["poll"]
    titles = [option["title"] for option in poll["options"]] if poll else ()
    return searchable_text(status["content"], status["spoiler_text"], titles)


# The two letters that patterns take for an i, and folding does not.
_TURKISH = {0x130: "i", 0x131: "i"}


@lru_cache(maxsize=20_000)
def _fold(text: str) -> str:
    """A form in which whatever a pattern takes for the same letter is the same; character by character."""
    return text.translate(_TURKISH).casefold()


@lru_cache(maxsize=10_000)
def _pattern(keywords: tuple[tuple[str, bool], ...]) -> re.Pattern[str] | None:
    if not keywords:
        return None
    return re.compile("|".join(_keyword_pattern(word, whole) for word, whole in keywords), re.IGNORECASE)


def _keyword_pattern(word: str, whole: bool) -> str:
    # A boundary only where the keyword begins or ends with a letter: "C++" has none behind it.
    before = r"\b" if whole and re.match(r"\w", word) else ""
    after = r"\b" if whole and re.search(r"\w\Z", word) else ""
    return f"{before}{re.escape(word)}{after}"
