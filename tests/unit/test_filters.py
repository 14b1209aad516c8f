"""Filters: what matches, what is hidden, and that a filter with an end ends."""

import re
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanline.content import to_html
from readmodels.filters import _fold, filter_results, hides, parse_filters, searchable_text

URL = "https://fanline.example"
NOW = 1_795_353_890_000


def row(**fields: Any) -> dict[str, Any]:
    return {
        "id": "1b4e28ba-2fa1-41d2-883f-0016d3cca427",
        "title": "no",
        "contexts": ["home", "public"],
        "action": "warn",
        "expires_ms": 0,
        "keywords": [],
        "posts": [],
        **fields,
    }


def matches(text: str, *keywords: tuple[str, bool]) -> list[str]:
    (filters,) = [parse_filters([row(keywords=[list(keyword) for keyword in keywords])])]
    return [word for result in filter_results(filters, text, (1,), NOW) for word in result["keyword_matches"]]


@pytest.mark.parametrize(
    ("text", "keyword", "whole", "found"),
    [
        ("I like TEA.", "tea", True, ["TEA"]),
        ("a team", "tea", True, []),
        ("a team", "tea", False, ["tea"]),
        ("learn C++ now", "C++", True, ["C++"]),
        ("über alles", "Über", True, ["über"]),
        ("xüber", "über", True, []),
        ("see #tea", "#tea", True, ["#tea"]),
        ("a.b", "a.b", True, ["a.b"]),
        ("axb", "a.b", True, []),
        ("two words", "two words", True, ["two words"]),
    ],
)
def test_a_keyword_is_found_as_it_is_written(text: str, keyword: str, whole: bool, found: list[str]) -> None:
    assert matches(text, (keyword, whole)) == found


def test_a_result_names_the_filter_and_what_matched() -> None:
    filters = parse_filters([row(keywords=[["tea", True]], posts=["7"], expires_ms=NOW + 1)])
    (result,) = filter_results(filters, "tea", (5, 7), NOW)
    assert result == {
        "filter": {
            "id": "1b4e28ba-2fa1-41d2-883f-0016d3cca427",
            "title": "no",
            "context": ["home", "public"],
            "expires_at": "2026-11-22T13:24:50.001Z",
            "filter_action": "warn",
        },
        "keyword_matches": ["tea"],
        "status_matches": ["7"],
    }
    (only_post,) = filter_results(filters, "coffee", (7,), NOW)
    assert (only_post["keyword_matches"], only_post["status_matches"]) == (None, ["7"])
    assert filter_results(filters, "coffee", (8,), NOW) == []


def test_a_filter_that_has_ended_matches_nothing() -> None:
    filters = parse_filters([row(keywords=[["tea", True]], expires_ms=NOW)])
    assert filter_results(filters, "tea", (1,), NOW) == []
    assert len(filter_results(filters, "tea", (1,), NOW - 1)) == 1


def test_only_a_hiding_filter_of_the_context_hides() -> None:
    def hidden(context: str, **fields: Any) -> bool:
        return hides(parse_filters([row(keywords=[["tea", True]], **fields)]), context, "tea", (1,), NOW)

    assert hidden("home", action="hide")
    assert not hidden("notifications", action="hide")
    assert not hidden("home", action="warn")
    assert not hidden("home", action="hide", expires_ms=NOW)


def test_text_is_searched_as_the_author_wrote_it() -> None:
    text = "one <b> & two\nthree\n\nfour https://example.org/a/very/long/address/that/is/cut?x=1&y=2 #tag"
    assert searchable_text(to_html(text, URL, {}), "warning", ["option"]).splitlines() == [
        "warning",
        "one <b> & two",
        "three",
        "four https://example.org/a/very/long/address/that/is/cut?x=1&y=2 #tag",
        "",
        "option",
    ]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20))
def test_every_keyword_is_found_in_itself(word: str) -> None:
    assert matches(word, (word, True)) == [word]


def test_whatever_a_pattern_takes_for_the_same_letter_is_the_same_when_folded() -> None:
    alike: dict[str, set[str]] = {}
    for letter in map(chr, range(sys.maxunicode + 1)):
        if letter == letter.lower() == letter.upper() == letter.casefold():
            continue
        for form in {letter.lower(), letter.upper(), letter.casefold(), letter.title()}:
            if len(form) == 1:
                alike.setdefault(form, set()).add(letter)
    alike["i"] |= {"\u0130", "\u0131"}
    checked = 0
    for form, others in alike.items():
        pattern = re.compile(re.escape(form), re.IGNORECASE)
        for letter in others | {other for each in others for other in alike.get(each, ())}:
            if pattern.fullmatch(letter):
                checked += 1
                assert _fold(letter) == _fold(form), (letter, form)
    assert checked > 2_000


def test_filters_survive_the_way_through_a_document() -> None:
    rows = [row(keywords=[["tea", True], ["Kaffee", False]], posts=["7"], action="hide")]
    assert parse_filters(msgspec.json.decode(msgspec.json.encode(rows))) == parse_filters(rows)
