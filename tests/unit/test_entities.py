"""Account and Status entities of rows as the database gives them."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

from readmodels.entities import (
    account_counts,
    account_entity,
    account_source,
    status_counts,
    status_entity,
    status_flags,
    timestamp,
)

URL = "https://fanline.example"
ANN = UUID("6fa459ea-ee8a-4ca4-894e-db77e160355e")
WHEN = datetime(2026, 11, 22, 14, 5, 9, 123_999, UTC)


def user(**columns: Any) -> dict[str, Any]:
    return {
        "id": ANN,
        "username": "Ann",
        "display_name": "<Ann>",
        "note": "I am #ann",
        "fields": [{"name": "web", "value": "https://ann.example"}],
        "avatar_media_id": None,
        "header_media_id": None,
        "locked": False,
        "bot": True,
        "discoverable": True,
        "indexable": False,
        "default_visibility": "private",
        "default_sensitive": True,
        "default_language": "de",
        "created_at": WHEN,
        "silenced_at": None,
        "suspended_at": None,
        **columns,
    }


def post(**columns: Any) -> dict[str, Any]:
    return {
        "id": (1 << 60) + 1,
        "author_id": ANN,
        "author_username": "Ann",
        "text": "hi @bob and @eve",
        "spoiler_text": "",
        "sensitive": False,
        "visibility": "public",
        "language": "en",
        "in_reply_to_id": None,
        "in_reply_to_account_id": None,
        "repost_of_id": None,
        "conversation_id": (1 << 60) + 1,
        "poll_id": None,
        "created_at": WHEN,
        "edited_at": None,
        "application_name": None,
        "application_website": None,
        "mentions": [{"id": str(ANN), "username": "Bob"}],
        "hashtags": ["one"],
        **columns,
    }


def test_times_are_utc_with_milliseconds_cut_off() -> None:
    assert timestamp(WHEN) == "2026-11-22T14:05:09.123Z"
    assert timestamp(WHEN.astimezone(timezone(timedelta(hours=5)))) == "2026-11-22T14:05:09.123Z"


def test_an_account_has_every_field_that_clients_read() -> None:
    entity = account_entity(user(), URL) | account_counts(
        {"followers_count": 1, "following_count": 2, "statuses_count": 3, "last_status_at": WHEN}
    )
    assert entity["id"] == str(ANN)
    assert entity["acct"] == entity["username"] == "Ann"
    assert entity["url"] == f"{URL}/@Ann"
    assert entity["display_name"] == "<Ann>"  # clients escape it: it is text
    assert entity["note"].startswith("<p>I am <a ")
    assert entity["fields"][0]["value"].startswith("<a ")
    assert entity["last_status_at"] == "2026-11-22"
    assert entity["noindex"] is True
    assert "suspended" not in entity
    assert "limited" not in entity


def test_a_suspended_or_silenced_account_says_so() -> None:
    assert account_entity(user(suspended_at=WHEN), URL)["suspended"] is True
    assert account_entity(user(silenced_at=WHEN), URL)["limited"] is True


def test_ones_own_account_shows_what_was_typed() -> None:
    source = account_source(user(), 4)
    assert source["note"] == "I am #ann"
    assert (source["privacy"], source["sensitive"], source["language"]) == ("private", True, "de")
    assert source["follow_requests_count"] == 4


def test_ids_are_decimal_strings() -> None:
    entity = status_entity(post(in_reply_to_id=5, in_reply_to_account_id=ANN), URL)
    assert entity["id"] == "1152921504606846977"
    assert entity["in_reply_to_id"] == "5"
    assert entity["in_reply_to_account_id"] == str(ANN)


def test_only_people_who_are_really_mentioned_are_linked() -> None:
    entity = status_entity(post(), URL)
    assert f'href="{URL}/@Bob"' in entity["content"]
    assert "@eve" in entity["content"]
    assert "@Eve" not in entity["content"]
    assert [mention["acct"] for mention in entity["mentions"]] == ["Bob"]


def test_the_application_is_shown_when_there_is_one() -> None:
    assert status_entity(post(), URL)["application"] is None
    assert status_entity(post(application_name="web"), URL)["application"] == {"name": "web", "website": None}


def test_a_repost_has_no_content_of_its_own() -> None:
    entity = status_entity(post(text="", mentions=[], hashtags=[], repost_of_id=7), URL)
    assert entity["content"] == ""


def test_counts_and_flags_are_taken_from_their_rows_alone() -> None:
    counts = {"id": 1, "replies_count": 1, "reblogs_count": 2, "favourites_count": 3}
    flags = {"favourited": True, "reblogged": False, "bookmarked": True, "muted": False, "pinned": True}
    assert status_counts(counts) == {key: value for key, value in counts.items() if key != "id"}
    assert status_flags({"id": 1, **flags}) == flags
