"""A post's plain text as HTML: paragraphs, links, mentions and hashtags. Pure and safe by construction.

The text is cut into pieces once (`pieces`); the HTML, the people mentioned and the hashtags all come from those
pieces, so they cannot disagree. Everything that is not markup of ours is escaped.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from urllib.parse import quote, urlsplit

USERNAME = re.compile(r"[a-zA-Z0-9_]{1,30}", re.ASCII)
MAX_HASHTAG_CHARACTERS = 100
SHOWN_LINK_CHARACTERS = 30

_PIECE = re.compile(
    r"(?P<link>\bhttps?://[^\s<>\"\u0000-\u001f]+)"
    r"|(?<![\w/@=&])@(?P<username>[a-zA-Z0-9_]{1,30})(?![a-zA-Z0-9_])(?:@(?P<domain>[a-zA-Z0-9.:-]*[a-zA-Z0-9]))?"
    r"|(?<![\w/&#=])#(?P<hashtag>\w*[^\W\d_]\w*)",
)
_TRAILING = ".,:;!?'\"*_~"
_BRACKETS = {")": "(", "]": "[", "}": "{"}
# C0 and C1 controls are not text (Postgres refuses NUL); newline and tab stay.
_CONTROLS = re.compile(r"[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]")


@dataclass(frozen=True, slots=True)
class Plain:
    """Text that means only itself."""

    text: str


@dataclass(frozen=True, slots=True)
class Link:
    """An http or https address."""

    url: str


@dataclass(frozen=True, slots=True)
class Mention:
    """`@username` or `@username@domain`; `domain` is empty for the first form."""

    username: str
    domain: str

    @property
    def text(self) -> str:
        """The mention as it was written."""
        return f"@{self.username}@{self.domain}" if self.domain else f"@{self.username}"


@dataclass(frozen=True, slots=True)
class Hashtag:
    """`#name`, without the sign."""

    name: str


Piece = Plain | Link | Mention | Hashtag


def clean(text: str) -> str:
    """The text with Unix line ends, without control characters and without blanks around it."""
    return _CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def pieces(text: str) -> Iterator[Piece]:
    """The pieces of a text in order; their source texts joined are the text."""
    position = 0
    search_from = 0
    while found := _PIECE.search(text, search_from):
        piece, end = _piece(found)
        search_from = max(end, found.start() + 1)
        if piece is None:
            continue
        if found.start() > position:
            yield Plain(text[position : found.start()])
        yield piece
        position = end
    if position < len(text):
        yield Plain(text[position:])


def _piece(found: re.Match[str]) -> tuple[Piece | None, int]:
    """The piece at a match and where it ends; no piece when the match turns out to be plain text."""
    link, hashtag = found["link"], found["hashtag"]
    if link is not None:
        url = _trimmed(link)
        valid = _has_host(url)
        return (Link(url) if valid else None), found.start() + len(url)
    if hashtag is not None:
        valid = len(hashtag) <= MAX_HASHTAG_CHARACTERS
        return (Hashtag(hashtag) if valid else None), found.end()
    return Mention(found["username"], found["domain"] or ""), found.end()


def _trimmed(url: str) -> str:
    """The address without the punctuation that belongs to the sentence around it."""
    while url:
        last = url[-1]
        unbalanced = last in _BRACKETS and url.count(last) > url.count(_BRACKETS[last])
        if last not in _TRAILING and not unbalanced:
            break
        url = url[:-1]
    return url


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:  # such as an unfinished IPv6 address
        return False


def mentioned_usernames(text: str, local_domain: str) -> list[str]:
    """Lower-case names of the local people that the text mentions, in order, each once."""
    return list(
        dict.fromkeys(
            piece.username.lower()
            for piece in pieces(text)
            if isinstance(piece, Mention) and piece.domain.lower() in ("", local_domain.lower())
        )
    )


def hashtags(text: str) -> list[str]:
    """Lower-case names of the hashtags in the text, in order, each once."""
    return list(dict.fromkeys(piece.name.lower() for piece in pieces(text) if isinstance(piece, Hashtag)))


def hashtag_url(public_url: str, name: str) -> str:
    """Where a hashtag's posts are shown."""
    return f"{public_url}/tags/{quote(name.lower())}"


def profile_url(public_url: str, username: str) -> str:
    """Where a person's profile is shown."""
    return f"{public_url}/@{username}"


def to_html(text: str, public_url: str, mentioned: Mapping[str, str]) -> str:
    """The text as HTML paragraphs.

    `mentioned` maps the lower-case names of the people that the post really mentions to their names as they write
    them; any other `@name` stays plain text. An empty text gives an empty string.
    """
    if not text:
        return ""
    local_domain = urlsplit(public_url).netloc.lower()
    html = "".join(_html(piece, public_url, local_domain, mentioned) for piece in pieces(text))
    paragraphs = re.split(r"\n{2,}", html.strip("\n"))
    return "".join(f"<p>{paragraph.replace(chr(10), '<br />')}</p>" for paragraph in paragraphs)


def _html(piece: Piece, public_url: str, local_domain: str, mentioned: Mapping[str, str]) -> str:
    match piece:
        case Plain(text):
            return escape(text)
        case Link(url):
            return _link_html(url)
        case Hashtag(name):
            href = escape(hashtag_url(public_url, name))
            return f'<a href="{href}" class="mention hashtag" rel="tag">#<span>{escape(name)}</span></a>'
        case Mention(username, domain):
            local = domain.lower() in ("", local_domain)
            known_as = mentioned.get(username.lower()) if local else None
            if known_as is None:
                return escape(piece.text)
            href = escape(profile_url(public_url, known_as))
            anchor = f'<a href="{href}" class="u-url mention">@<span>{escape(known_as)}</span></a>'
            return f'<span class="h-card" translate="no">{anchor}</span>'


def _link_html(url: str) -> str:
    """A link that shows the start of a long address; the hidden parts keep it whole when copied."""
    scheme, rest = url.split("//", 1)
    shown, hidden = rest[:SHOWN_LINK_CHARACTERS], rest[SHOWN_LINK_CHARACTERS:]
    css = "ellipsis" if hidden else ""
    return (
        f'<a href="{escape(url)}" rel="nofollow noopener noreferrer" translate="no" target="_blank">'
        f'<span class="invisible">{scheme}//</span><span class="{css}">{escape(shown)}</span>'
        f'<span class="invisible">{escape(hidden)}</span></a>'
    )
