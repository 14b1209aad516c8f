"""The channels' pure parts: endpoints, keys, payloads, mails and pauses."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from fanline.endpoints import endpoint_fault, is_public
from fanline.errors import ConfigurationError
from fanline.settings import Settings
from fanline.vapid import VapidKey, new_private_key, subject_of
from readmodels.channel_deliveries import LONGEST_PAUSE_SECONDS, finish, pause_seconds
from readmodels.digest import SHOWN, digest_mail
from readmodels.notifications import TYPES
from readmodels.push import ALERTS, excerpt, payload, title

URL = "https://fanline.example"


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://push.example/x",
        "https://127.0.0.1/x",
        "https://10.0.0.1/x",
        "https://169.254.169.254/latest",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[fd00::1]/x",
        "https://localhost/x",
        "https://metadata.internal/x",
        "https://intranet/x",
        "https://user:secret@push.example/x",
        "https://push.example:99999/x",
        "https://push.example/\n",
        "ftp://push.example/x",
        "",
        "https://",
    ],
)
def test_an_endpoint_that_is_not_public_and_protected_is_refused(endpoint: str) -> None:
    assert endpoint_fault(endpoint, allow_private=False) is not None


def test_a_public_endpoint_is_taken_and_a_private_one_if_it_is_allowed() -> None:
    assert endpoint_fault("https://push.example:8443/x?y", allow_private=False) is None
    assert endpoint_fault("http://127.0.0.1:1/x", allow_private=True) is None
    assert endpoint_fault("file:///etc/passwd", allow_private=True) is not None
    assert is_public("8.8.8.8")
    assert not is_public("::ffff:10.0.0.1")


def test_a_key_is_read_as_it_was_written_and_signs_for_one_service() -> None:
    pem = new_private_key()
    key = VapidKey(pem)
    assert key.public == VapidKey(pem).public
    assert len(key.public) == 87
    header = key.authorization("https://push.example/abc", "mailto:a@example.org", 1_000)
    assert header.startswith("vapid t=")
    assert header.endswith(f"k={key.public}")
    with pytest.raises(ConfigurationError, match="FANLINE_VAPID_PRIVATE_KEY"):
        VapidKey("nonsense")


def test_a_push_service_is_told_whom_to_turn_to() -> None:
    assert subject_of(Settings(vapid_subject="mailto:x@example.org"), URL) == "mailto:x@example.org"
    assert subject_of(Settings(contact_email="y@example.org"), URL) == "mailto:y@example.org"
    assert subject_of(Settings(), URL) == URL
    assert subject_of(Settings(), "http://127.0.0.1:8080").startswith("mailto:")


def test_every_type_of_notification_has_a_title_and_nearly_all_an_alert() -> None:
    assert {title(kind, "Ada") for kind in TYPES}
    assert set(TYPES) - set(ALERTS) == {"moderation_warning"}
    assert title("mention", None) == "Somebody mentioned you"


def row(**columns: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "notification_id": 1,
        "type": "mention",
        "locale": "de",
        "sender": "Ada",
        "sender_username": "ada",
        "author_username": "ada",
        "post_id": 7,
        "note": "I am Ada",
        "avatar_media_id": None,
        "text": "x " * 500,
        "spoiler_text": "",
    } | columns


def test_a_payload_is_small_and_hides_what_a_warning_hides() -> None:
    body = payload(row(sender="A" * 100, text="ü" * 5_000), URL, "t" * 700)
    assert len(body) < 3_000
    shown = msgspec.json.decode(payload(row(spoiler_text="careful"), URL, "token"))
    assert shown["body"] == "careful"
    follow = payload(row(type="follow", text=None, spoiler_text=None), URL, "token")
    assert msgspec.json.decode(follow)["body"] == "I am Ada"


def test_a_payload_has_what_mastodon_s_has() -> None:
    shown = msgspec.json.decode(payload(row(notification_id=7), URL, "token"))
    wanted = {"access_token", "preferred_locale", "notification_id", "notification_type", "icon", "title", "body"}
    assert set(shown) == wanted
    assert (shown["access_token"], shown["preferred_locale"], shown["notification_id"]) == ("token", "de", 7)
    assert set(msgspec.json.decode(payload(row(), URL, None))) == wanted - {"access_token"}


def test_what_a_key_has_sealed_it_alone_reads() -> None:
    pem = new_private_key()
    sealed = VapidKey(pem).seal("a token")
    assert "a token" not in sealed
    assert VapidKey(pem).unseal(sealed) == "a token"
    assert VapidKey(new_private_key()).unseal(sealed) is None
    assert VapidKey(pem).unseal("nonsense") is None


def test_an_excerpt_is_one_line_that_says_when_it_was_cut() -> None:
    assert excerpt("a\n\nb", 10) == "a b"
    assert excerpt("abcdefgh", 5) == "abcd…"


def mail(count: int) -> Any:
    reader = {"email": "b@example.org", "username": "bob", "display_name": "", "unsubscribe_token": "tok"}
    rows = [row(id=number, text="<script>alert(1)</script>") for number in range(count)]
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return digest_mail(reader, rows, instance="Fan & line", sender="f@example.org", public_url=URL, now=now)


def test_a_digest_says_how_to_end_it_and_shows_no_markup_of_others() -> None:
    message = mail(SHOWN + 3)
    assert message["Subject"] == f"{SHOWN + 3} new notifications on Fan & line"
    assert message["List-Unsubscribe"] == f"<{URL}/unsubscribe/tok>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    plain = message.get_body(("plain",)).get_content()
    html = message.get_body(("html",)).get_content()
    assert plain.count("Ada mentioned you") == SHOWN
    assert "And 3 more." in plain
    assert f"{URL}/@ada/7" in plain
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_pauses_grow_and_end() -> None:
    pauses = [pause_seconds(attempt, 30.0) for attempt in range(1, 20)]
    assert pauses[:3] == [30.0, 60.0, 120.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_a_reason_is_kept_short() -> None:
    query = finish("push", uuid4(), [1], "failed", "x" * 1_000)
    assert len(query.parameters["reason"]) == 500
