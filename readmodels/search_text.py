"""What somebody types into a search box, taken apart. Pure.

words and "quoted phrases"      must all be there; with a minus in front, must not
#tag                            must be a hashtag of the post
from:name                       by this person; `from:me` by the one who searches
before:2026-01-31 after:...     made on an earlier or a later day (UTC); during: on that day
language:de                     in this language
has:media has:poll is:reply is:sensitive
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

_TERM = re.compile(r'(?P<minus>-?)(?:"(?P<phrase>[^"]*)"?|(?P<word>\S+))')
_OPERATOR = re.compile(r"(from|before|after|during|language|has|is):(\S+)", re.IGNORECASE)
FLAGS = {
    ("has", "media"): "has_media",
    ("has", "poll"): "has_poll",
    ("is", "reply"): "is_reply",
    ("is", "sensitive"): "sensitive",
}
MAX_TERMS = 32
"""More make no better search, and cost OpenSearch."""


@dataclass(slots=True)
class SearchText:
    """A search, taken apart; texts are as they were typed."""

    words: list[str] = field(default_factory=list)
    phrases: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    """Hashtags without the sign, in lower case."""
    author: str | None = None
    """A handle without the sign, or `me`."""
    language: str | None = None
    flags: dict[str, bool] = field(default_factory=dict)
    """Fields of the post's document (readmodels/search.py), and what they must be."""
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""

    @property
    def is_empty(self) -> bool:
        """Whether it asks for nothing."""
        return not (
            self.words or self.phrases or self.tags or self.author or self.language or self.flags or self.since
            or self.until
        )  # fmt: skip


def parse(text: str) -> SearchText:
    """The search in a text; what is no operator, or an operator with a value that it does not know, is a word."""
    found = SearchText()
    for term in list(_TERM.finditer(text))[:MAX_TERMS]:
        minus = bool(term["minus"])
        if term["phrase"] is not None:
            if term["phrase"].strip():
                (found.without if minus else found.phrases).append(term["phrase"].strip())
            continue
        word = term["word"]
        operator = _OPERATOR.fullmatch(word)
        if operator is not None and _apply(found, operator[1].lower(), operator[2], minus):
            continue
        if minus:
            found.without.append(word)
        elif word.startswith("#") and len(word) > 1:
            found.tags.append(word[1:].lower())
        else:
            found.words.append(word)
    return found


def _apply(found: SearchText, name: str, value: str, minus: bool) -> bool:
    """Take in an operator; whether it is one."""
    if name in ("has", "is"):
        flag = FLAGS.get((name, value.lower()))
        if flag is None:
            return False
        found.flags[flag] = not minus
        return True
    if minus:
        return False
    if name == "from":
        found.author = value.removeprefix("@").split("@")[0].lower()
    elif name == "language":
        found.language = value.lower().split("-")[0]
    else:
        try:
            day = datetime.combine(date.fromisoformat(value), datetime.min.time(), UTC)
        except ValueError:
            return False
        if name != "before":
            found.since = day if name == "during" else day + timedelta(days=1)
        if name != "after":
            found.until = day if name == "before" else day + timedelta(days=1)
    return True
