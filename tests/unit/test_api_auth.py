"""Scopes, passwords, sign-up rules and signing keys, without a server."""

import pytest

from api.auth import scopes
from api.auth.identities import check_sign_up
from api.auth.keys import key_ring, new_key
from api.auth.passwords import Passwords, hash_password, verify_password
from api.errors import ApiError


@pytest.mark.parametrize(
    ("granted", "required", "allowed"),
    [
        ("read", "read:statuses", True),
        ("read:statuses", "read:statuses", True),
        ("read:accounts", "read:statuses", False),
        ("write", "read:statuses", False),
        ("follow", "write:follows", True),
        ("follow", "read:mutes", True),
        ("follow", "write:statuses", False),
        ("read:accounts", "profile", True),
        ("profile", "read:accounts", False),
        ("", "read", False),
    ],
)
def test_a_scope_allows_itself_and_what_it_contains(granted: str, required: str, allowed: bool) -> None:
    assert scopes.allows(scopes.parse(granted), required) is allowed


def test_an_unknown_scope_is_named() -> None:
    with pytest.raises(ValueError, match="write:everything"):
        scopes.parse("read write:everything")


def test_scopes_are_written_in_one_order() -> None:
    assert scopes.join(scopes.parse("write:media read+follow")) == "read follow write:media"


def test_an_application_may_ask_for_parts_of_what_it_registered() -> None:
    registered = scopes.parse("read write:statuses")
    assert scopes.within(scopes.parse("read:accounts write:statuses"), registered)
    assert not scopes.within(scopes.parse("write"), registered)


def test_a_hash_verifies_its_password_only() -> None:
    hashed = hash_password("correct horse")
    assert verify_password(hashed, "correct horse")
    assert not verify_password(hashed, "correct hors")
    assert not verify_password("not a hash", "correct horse")


async def test_nobody_has_the_password_of_nobody() -> None:
    passwords = Passwords(threads=1)
    try:
        assert not await passwords.verify(None, "a password that nobody has")
    finally:
        passwords.close()


@pytest.mark.parametrize(
    ("username", "email", "password", "fault"),
    [
        ("", "a@example.org", "password1", "Username"),
        ("a b", "a@example.org", "password1", "Username"),
        ("é", "a@example.org", "password1", "Username"),
        ("x" * 31, "a@example.org", "password1", "Username"),
        ("Admin", "a@example.org", "password1", "reserved"),
        ("ann", "nobody", "password1", "Email"),
        ("ann", "a@example.org", "short", "too short"),
        ("ann", "a@example.org", "x" * 1_001, "too long"),
    ],
)
def test_a_sign_up_that_cannot_be_used_says_why(username: str, email: str, password: str, fault: str) -> None:
    with pytest.raises(ApiError, match=fault) as caught:
        check_sign_up(username, email, password)
    assert caught.value.status == 422


def test_all_faults_of_a_sign_up_are_named_at_once() -> None:
    with pytest.raises(ApiError, match=r"Username.*Email.*Password"):
        check_sign_up("!", "!", "!")


def test_the_newest_active_key_signs_and_retired_ones_still_verify() -> None:
    rows = [new_key() | {"active": active} for active in (False, True, True)]
    ring = key_ring(rows)
    assert ring.signing_id == rows[2]["kid"]
    assert set(ring.public) == {row["kid"] for row in rows}


def test_without_a_key_nothing_signs() -> None:
    ring = key_ring([])
    assert (ring.signing_id, ring.signing_key) == (None, None)
