"""Text to HTML: what is markup, what is not, and that nothing a person writes becomes markup by itself."""

from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fanline.content import (
    Hashtag,
    Link,
    Mention,
    Plain,
    clean,
    hashtags,
    mentioned_usernames,
    pieces,
    to_html,
)

URL = "https://fanline.example"
ALLOWED_TAGS = {"p", "br", "a", "span"}
ALLOWED_ATTRIBUTES = {"href", "rel", "class", "translate", "target"}

fragments = st.sampled_from(
    [
        "@alice",
        "@bob@fanline.example",
        "#tag",
        "#Ünï",
        "https://a.example/x?y=1&z=(2)",
        "http://[::1",
        "<b>",
        '"',
        "&amp;",
        "\n",
        "\n\n",
        " ",
        "'",
        "javascript:alert(1)",
        "@",
        "#",
        "://",
        ".",
        ")",
        "é",
        "猫",
    ]
)
texts = st.one_of(st.text(), st.lists(fragments | st.text(max_size=5)).map("".join))


class Checker(HTMLParser):
    """Collects the text and refuses what `to_html` never writes."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED_TAGS
        for name, value in attrs:
            assert name in ALLOWED_ATTRIBUTES
            if name == "href":
                assert value is not None
                assert value.startswith(("http://", "https://"))
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag == "br"

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_decl(self, decl: str) -> None:
        raise AssertionError(decl)

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(html: str) -> str:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker.text


def source(piece: Plain | Link | Mention | Hashtag) -> str:
    match piece:
        case Plain(text) | Link(text):
            return text
        case Hashtag(name):
            return f"#{name}"
        case Mention():
            return piece.text


@settings(deadline=None)
@given(texts)
def test_the_pieces_of_any_text_join_to_that_text(text: str) -> None:
    assert "".join(map(source, pieces(text))) == text


@settings(deadline=None)
@given(texts)
@example("<script>alert(1)</script>")
@example("https://a.example/\"onmouseover='x'")
def test_any_text_becomes_only_our_own_markup_and_keeps_its_words(text: str) -> None:
    text = clean(text)
    shown = checked(to_html(text, URL, {"alice": "Alice", "bob": "bob"}))
    without_case_and_blanks = "".join(shown.lower().split())
    expected = "".join(text.lower().split()).replace("@bob@fanline.example", "@bob")
    assert without_case_and_blanks.replace("@bob@fanline.example", "@bob") == expected


def test_blank_lines_make_paragraphs_and_single_line_ends_make_breaks() -> None:
    assert to_html("one\ntwo\n\n\nthree", URL, {}) == "<p>one<br />two</p><p>three</p>"


def test_an_empty_text_is_empty_html() -> None:
    assert to_html("", URL, {}) == ""


def test_a_known_person_is_linked_by_the_name_as_they_write_it() -> None:
    html = to_html("hi @ALICE!", URL, {"alice": "Alice"})
    assert f'<a href="{URL}/@Alice" class="u-url mention">@<span>Alice</span></a></span>!' in html


def test_an_unknown_or_remote_name_stays_text() -> None:
    assert to_html("@nobody and @alice@elsewhere.example", URL, {"alice": "Alice"}) == (
        "<p>@nobody and @alice@elsewhere.example</p>"
    )


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("see https://a.example/x.", ["https://a.example/x"]),
        ("(https://a.example/x)", ["https://a.example/x"]),
        ("https://a.example/wiki/X_(y)", ["https://a.example/wiki/X_(y)"]),
        ("xhttps://a.example", []),
        ("http:// nothing", []),
        ("http://[::1", []),
        ("https://a.example/#part @b", ["https://a.example/#part"]),
    ],
)
def test_addresses_end_where_the_sentence_goes_on(text: str, urls: list[str]) -> None:
    assert [piece.url for piece in pieces(text) if isinstance(piece, Link)] == urls


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("#One #one #two_3", ["one", "two_3"]),
        ("#123 is a number", []),
        ("a#b and &#39; are none", []),
        ("#猫 #Ünï", ["猫", "ünï"]),
        ("https://a.example/#part", []),
    ],
)
def test_hashtags_are_found_once_each_in_order(text: str, names: list[str]) -> None:
    assert hashtags(text) == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("@Bob, @alice and @bob", ["bob", "alice"]),
        ("mail@example.org", []),
        ("@bob@fanline.example @eve@elsewhere.example", ["bob"]),
        ("https://a.example/@bob", []),
        ("@" + "x" * 31, []),
    ],
)
def test_local_people_mentioned_are_found_once_each_in_order(text: str, names: list[str]) -> None:
    assert mentioned_usernames(text, "fanline.example") == names


def test_cleaning_drops_controls_and_unifies_line_ends() -> None:
    assert clean(" a\r\nb\rc\x00\x07\td ") == "a\nb\nc\td"
