"""Mastodon.py does with statuses what its users do: favourites, bookmarks, pins, muted threads, polls and filters."""

from collections.abc import Callable
from typing import Any

import pytest
from mastodon import Mastodon, MastodonAPIError

from tests.integration.contract.valkey import wait_until

SignUp = Callable[[str], Mastodon]


def ids(entities: Any) -> list[str]:
    return [str(entity["id"]) for entity in entities]


def test_favourites_and_bookmarks_are_kept_and_paged(sign_up: SignUp) -> None:
    ann, bob = sign_up("ann"), sign_up("bob")
    posts = [ann.status_post(f"{number}") for number in range(3)]
    for post in posts:
        assert bob.status_favourite(post["id"])["favourited"]
        assert bob.status_bookmark(post["id"])["bookmarked"]
    newest_first = ids(reversed(posts))
    first = bob.favourites(limit=2)
    assert ids(first) == newest_first[:2]
    assert ids(bob.fetch_next(first)) == newest_first[2:]
    assert ids(bob.fetch_remaining(bob.bookmarks(limit=1))) == newest_first
    assert ids(ann.status_favourited_by(posts[0]["id"])) == ids([bob.me()])
    assert bob.status_unfavourite(posts[0]["id"])["favourites_count"] == 0
    assert not bob.status_unbookmark(posts[0]["id"])["bookmarked"]
    assert ids(bob.favourites()) == newest_first[:2]


def test_a_pinned_status_is_on_the_profile_and_a_muted_thread_is_marked(sign_up: SignUp) -> None:
    ann, bob = sign_up("ann"), sign_up("bob")
    post = ann.status_post("pin me")
    ann.status_post("not me")
    assert ann.status_pin(post["id"])["pinned"]
    assert ids(bob.account_statuses(ann.me()["id"], pinned=True)) == ids([post])
    assert not ann.status_unpin(post["id"])["pinned"]
    reply = bob.status_reply(post, "hm")
    assert ann.status_mute(reply["id"])["muted"]
    assert ann.status(post["id"])["muted"]
    assert not ann.status_unmute(post["id"])["muted"]


def test_a_poll_is_asked_answered_and_shown_at_home(sign_up: SignUp) -> None:
    ann, bob = sign_up("ann"), sign_up("bob")
    bob.account_follow(ann.me()["id"])
    poll = ann.make_poll(["tea", "coffee", "milk"], expires_in=600, multiple=True)
    asked = ann.status_post("what?", poll=poll)
    assert [option["title"] for option in asked["poll"]["options"]] == ["tea", "coffee", "milk"]
    voted = bob.poll_vote(asked["poll"]["id"], [0, 2])
    assert (voted["votes_count"], voted["voters_count"], list(voted["own_votes"])) == (2, 1, [0, 2])
    (shown,) = bob.timeline_home()
    assert (shown["poll"]["voted"], shown["poll"]["votes_count"]) == (True, 2)
    wait_until(lambda: ann.poll(asked["poll"]["id"])["options"][0]["votes_count"] == 1, "the author sees the vote", 30)
    with pytest.raises(MastodonAPIError, match="already voted"):
        bob.poll_vote(asked["poll"]["id"], 1)
    edited = ann.status_update(asked["id"], "what else?", poll=ann.make_poll(["water", "juice"], expires_in=600))
    assert (edited["poll"]["votes_count"], len(edited["poll"]["options"])) == (0, 2)
    assert [len(version["poll"]["options"]) for version in ann.status_history(asked["id"])] == [3, 2]


def test_filters_are_kept_and_mark_what_they_match(sign_up: SignUp) -> None:
    ann, bob = sign_up("ann"), sign_up("bob")
    ann.account_follow(bob.me()["id"])
    bob.status_post("nothing but tea")
    made = ann.create_filter_v2(
        "drinks", ["home"], "warn", keywords_attributes=[{"keyword": "tea", "whole_word": True}]
    )
    assert ids(ann.filters_v2()) == ids([made])
    (shown,) = ann.timeline_home()
    assert [result["filter"]["title"] for result in shown["filtered"]] == ["drinks"]
    ann.add_filter_keyword_v2(made["id"], "coffee", whole_word=False)
    assert {word["keyword"] for word in ann.filter_keywords_v2(made["id"])} == {"tea", "coffee"}
    assert {each["phrase"] for each in ann.filters()} == {"tea", "coffee"}
    ann.delete_filter_v2(made["id"])
    assert ann.filters_v2() == []
