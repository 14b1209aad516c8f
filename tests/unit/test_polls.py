"""Polls as entities: what is shown, to whom and when; and what a poll may ask."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.errors import ApiError
from api.poll_rows import MAX_OPTIONS, NewPoll, checked, is_same
from readmodels.polls import poll_entity, poll_flags

NOW = datetime(2026, 11, 22, 14, 5, 9, tzinfo=UTC)


def row(**columns: Any) -> dict[str, Any]:
    return {
        "id": 1 << 60,
        "multiple": False,
        "hide_totals": False,
        "expires_at": NOW + timedelta(seconds=1),
        "options": [{"title": "tea", "votes_count": 2}, {"title": "coffee", "votes_count": 1}],
        "voters_count": 3,
        **columns,
    }


def votes(**columns: Any) -> list[int | None]:
    return [option["votes_count"] for option in poll_entity(row(**columns), NOW)["options"]]


def test_a_poll_ends_at_its_time() -> None:
    assert poll_entity(row(), NOW)["expired"] is False
    assert poll_entity(row(expires_at=NOW), NOW)["expired"] is True
    endless = poll_entity(row(expires_at=None), NOW)
    assert (endless["expired"], endless["expires_at"]) == (False, None)


def test_hidden_votes_are_hidden_until_the_end_but_their_sum_is_not() -> None:
    assert votes() == [2, 1]
    assert votes(hide_totals=True) == [None, None]
    assert votes(hide_totals=True, expires_at=NOW) == [2, 1]
    assert poll_entity(row(hide_totals=True), NOW)["votes_count"] == 3


def test_the_author_counts_as_somebody_who_has_voted() -> None:
    assert poll_flags([], is_author=True) == {"voted": True, "own_votes": []}
    assert poll_flags([1, 2], is_author=False) == {"voted": True, "own_votes": [1, 2]}
    assert poll_flags([], is_author=False) == {"voted": False, "own_votes": []}


def test_titles_are_cleaned_before_they_are_counted() -> None:
    assert checked(NewPoll([" a ", "", "b\n"], 600)).options == ["a", "b"]
    with pytest.raises(ApiError, match="duplicate"):
        checked(NewPoll(["a", " a"], 600))
    with pytest.raises(ApiError, match=f"more than {MAX_OPTIONS}"):
        checked(NewPoll([str(number) for number in range(MAX_OPTIONS + 1)], 600))


def test_votes_stay_votes_only_for_the_same_options_in_their_order() -> None:
    earlier = {"id": 1, "multiple": False, "titles": ["a", "b"]}
    assert is_same(earlier, NewPoll(["a", "b"], 900, hide_totals=True))
    assert not is_same(earlier, NewPoll(["b", "a"], 900))
    assert not is_same(earlier, NewPoll(["a", "b"], 900, multiple=True))
    assert not is_same(earlier, None)
    assert is_same(None, None)
