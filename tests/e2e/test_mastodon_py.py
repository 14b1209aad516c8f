"""A client that knows nothing of Fanline: Mastodon.py signs up, posts, follows and reads over the running system."""

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from mastodon import (
    Mastodon,
    MastodonAPIError,
    MastodonIllegalArgumentError,
    MastodonNotFoundError,
    MastodonUnauthorizedError,
)

from tests.e2e.conftest import CALLBACK, PASSWORD, SCOPES


def ids(entities: Any) -> list[str]:
    return [str(entity["id"]) for entity in entities]


def test_a_client_recognises_the_server(base_url: str, sign_up: Callable[[str], Mastodon]) -> None:
    client = sign_up("ann")
    assert client.retrieve_mastodon_version().startswith("4.3")
    assert client.instance()["title"]
    assert client.instance_v1()["uri"] == urlsplit(base_url).netloc
    assert client.preferences()["posting:default:visibility"] == "public"
    assert client.custom_emojis() == []
    assert client.filters() == []
    assert client.lists() == []


def test_somebody_signs_in_with_a_code(
    base_url: str, application: tuple[str, str], sign_up: Callable[[str], Mastodon]
) -> None:
    username = sign_up("ann").me()["username"]
    client_id, client_secret = application
    client = Mastodon(client_id=client_id, client_secret=client_secret, api_base_url=base_url)
    address = client.auth_request_url(redirect_uris=CALLBACK, scopes=SCOPES, state="x", allow_http=True)
    form = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    form |= {"username": username, "password": PASSWORD, "decision": "allow"}
    answer = requests.post(f"{base_url}/oauth/authorize", data=form, allow_redirects=False, timeout=10)
    code = parse_qs(urlsplit(answer.headers["Location"]).query)["code"][0]
    client.log_in(code=code, redirect_uri=CALLBACK, scopes=SCOPES, allow_http=True)
    assert client.me()["username"] == username
    client.revoke_access_token(allow_http=True)
    client.session.close()


def test_a_post_is_written_read_edited_and_deleted(sign_up: Callable[[str], Mastodon]) -> None:
    ann, bob = sign_up("ann"), sign_up("bob")
    status = ann.status_post(
        f"hello @{bob.me()['username']} #e2e", spoiler_text="cw", visibility="unlisted", language="en"
    )
    assert status["mentions"][0]["id"] == bob.me()["id"]
    assert ann.status(status["id"])["content"] == status["content"]
    reply = bob.status_reply(status, "hi")
    assert ids(ann.status_context(status["id"])["descendants"]) == ids([reply])
    edited = ann.status_update(status["id"], "changed")
    assert "changed" in edited["content"]
    assert len(ann.status_history(status["id"])) == 2
    assert ann.status_source(status["id"])["text"] == "changed"
    assert ann.status_delete(status["id"])["text"] == "changed"
    with pytest.raises(MastodonNotFoundError):
        ann.status(status["id"])


def test_a_follower_sees_posts_and_reposts_at_home(sign_up: Callable[[str], Mastodon]) -> None:
    ann, bob, carol = sign_up("ann"), sign_up("bob"), sign_up("carol")
    assert bob.account_follow(ann.me()["id"])["following"]
    first = ann.status_post("first")
    theirs = carol.status_post("from carol")
    repost = ann.status_reblog(theirs["id"])
    expected = ids([repost, first])
    deadline = time.monotonic() + 30
    while (seen := ids(bob.timeline_home())) != expected and time.monotonic() < deadline:
        pass  # each look is a request
    assert seen == expected
    mine = carol.timeline_home()
    assert ids(mine) == ids([theirs])


def test_a_writer_reads_their_own_write_at_once(sign_up: Callable[[str], Mastodon]) -> None:
    ann = sign_up("ann")
    ann.timeline_home()
    for number in range(10):
        status = ann.status_post(f"number {number}")
        assert str(ann.timeline_home(limit=1)[0]["id"]) == str(status["id"])
        assert ids(ann.account_statuses(ann.me()["id"], limit=1)) == ids([status])


def test_pages_lead_through_the_whole_home_timeline(sign_up: Callable[[str], Mastodon]) -> None:
    ann = sign_up("ann")
    posted = ids(ann.status_post(f"number {number}") for number in range(7))
    page = ann.timeline_home(limit=3)
    walked: list[str] = []
    while page:
        walked += ids(page)
        page = ann.fetch_next(page)
    assert walked == posted[::-1]
    newer = ann.timeline_home(min_id=posted[0], limit=2)
    assert ids(newer) == [posted[2], posted[1]]
    assert ids(ann.fetch_previous(newer)) == [posted[4], posted[3]]


def test_relationships_follow_what_people_do(sign_up: Callable[[str], Mastodon]) -> None:
    ann, bob = sign_up("ann"), sign_up("bob")
    me, them = ann.me()["id"], bob.me()["id"]
    assert ann.account_mute(them, notifications=False)["muting"]
    assert not ann.account_unmute(them)["muting"]
    assert ann.account_follow(them, reblogs=False)["following"]
    assert ids(bob.account_followers(them)) == [str(me)]
    assert ann.account_block(them)["blocking"]
    assert ids(ann.blocks()) == [str(them)]
    assert ann.account_relationships([them])[0]["following"] is False
    with pytest.raises(MastodonAPIError):
        bob.account_follow(me)
    assert not ann.account_unblock(them)["blocking"]
    bob.account_update_credentials(locked=True, display_name="Bob", fields=[("web", "https://bob.example")])
    assert ann.account_follow(them)["requested"]
    assert ids(bob.follow_requests()) == [str(me)]
    bob.follow_request_authorize(me)
    assert ann.account_relationships([them])[0]["following"]
    found = ann.account_lookup(bob.me()["username"])
    assert (str(found["id"]), found["display_name"], found["fields"][0]["name"]) == (str(them), "Bob", "web")


def test_a_key_makes_a_repeated_post_one(sign_up: Callable[[str], Mastodon]) -> None:
    ann = sign_up("ann")
    key = hashlib.sha256(secrets.token_bytes(8)).hexdigest()
    first, second = (ann.status_post("once", idempotency_key=key) for _ in range(2))
    assert ids([first]) == ids([second])


def test_a_client_is_told_what_it_did_wrong(base_url: str, sign_up: Callable[[str], Mastodon]) -> None:
    ann = sign_up("ann")
    with pytest.raises(MastodonAPIError, match="blank"):
        ann.status_post("")
    with pytest.raises(MastodonAPIError, match="5000"):
        ann.status_post("x" * 5_001)
    with pytest.raises(MastodonNotFoundError):
        ann.account("00000000-0000-0000-0000-000000000000")
    stranger = Mastodon(access_token="forged", api_base_url=base_url)
    with pytest.raises((MastodonUnauthorizedError, MastodonIllegalArgumentError)):
        stranger.timeline_home()
    stranger.session.close()
