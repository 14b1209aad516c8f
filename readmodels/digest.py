"""The e-mail digest: what somebody has not read, in one mail, as often as they like.

A notification makes a pending delivery that is due with the person's next digest: one period after the first
notification that the last digest did not have. When it is sent, what was read meanwhile is left out, and so is what
people did who are suspended by then.
Mail goes only to addresses whose owner has confirmed them, and every mail can be ended with one click (RFC 8058).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, formataddr, make_msgid
from html import escape
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from fanline.content import profile_url
from readmodels.effects import Query
from readmodels.push import excerpt, title

PERIODS: Final = ("never", "hourly", "daily", "weekly")
FRESH_DAYS: Final = 14
"""Older notifications are in no digest; a replayed log then mails nothing, however long ago rows were pruned."""

SHOWN: Final = 25
"""Notifications that a mail lists; the others are counted."""

MAX_EXCERPT: Final = 200

PERIOD_SQL: Final = (
    "(CASE {digest} WHEN 'hourly' THEN interval '1 hour' WHEN 'daily' THEN interval '1 day' ELSE interval '7 days' END)"
)

_ENQUEUE = f"""
WITH wanted AS (
  SELECT n.id, n.user_id FROM notifications n
  JOIN email_preferences p ON p.user_id = n.user_id AND p.digest <> 'never'
  JOIN identities i ON i.user_id = n.user_id AND i.confirmed_at IS NOT NULL
  WHERE n.id = ANY(%(ids)s::bigint[]) AND n.dismissed_at IS NULL AND NOT n.filtered
    AND n.created_at > now() - interval '{FRESH_DAYS} days' AND n.created_at >= i.confirmed_at
), due AS (
  UPDATE email_preferences p
  SET next_digest_at = CASE WHEN p.next_digest_at > now() THEN p.next_digest_at
                            ELSE now() + {PERIOD_SQL.format(digest="p.digest")} END
  WHERE p.user_id IN (SELECT user_id FROM wanted)
  RETURNING p.user_id, p.next_digest_at
)
INSERT INTO notification_deliveries (notification_id, channel, target, next_attempt_at)
SELECT w.id, 'email', w.user_id, d.next_digest_at FROM wanted w JOIN due d ON d.user_id = w.user_id
ON CONFLICT DO NOTHING
RETURNING notification_id
"""

_READERS = """
SELECT p.user_id, p.unsubscribe_token, i.email, u.username, u.display_name
FROM email_preferences p
JOIN identities i ON i.user_id = p.user_id AND i.confirmed_at IS NOT NULL
JOIN users u ON u.id = p.user_id AND u.suspended_at IS NULL
WHERE p.user_id = ANY(%(targets)s::uuid[]) AND p.digest <> 'never'
"""

_UNREAD = """
SELECT n.id, n.user_id, n.type, n.post_id, sender.username AS sender_username,
       coalesce(nullif(sender.display_name, ''), sender.username) AS sender,
       p.text, p.spoiler_text, author.username AS author_username
FROM notifications n
LEFT JOIN markers m ON m.user_id = n.user_id AND m.timeline = 'notifications'
LEFT JOIN users sender ON sender.id = n.from_account_id
LEFT JOIN posts p ON p.id = n.post_id
LEFT JOIN users author ON author.id = p.author_id
WHERE n.id = ANY(%(ids)s::bigint[]) AND n.user_id = ANY(%(targets)s::uuid[])
  AND n.dismissed_at IS NULL AND NOT n.filtered AND n.id > coalesce(m.last_read_id, 0) AND sender.suspended_at IS NULL
ORDER BY n.id DESC
"""

_SILENCE = """
UPDATE email_preferences SET digest = 'never', updated_at = now() WHERE user_id = %(user_id)s RETURNING user_id
"""

_CLAIM_CONFIRMATIONS = """
UPDATE email_preferences AS p SET confirmation_due_at = NULL
FROM identities i
WHERE i.user_id = p.user_id AND i.confirmed_at IS NULL AND p.confirmation_token IS NOT NULL AND p.user_id IN (
  SELECT user_id FROM email_preferences WHERE confirmation_due_at <= now()
  ORDER BY confirmation_due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING p.user_id, p.confirmation_token, i.email
"""

_ASK_AGAIN = """
UPDATE email_preferences SET confirmation_due_at = now() + %(seconds)s * interval '1 second'
WHERE user_id = %(user_id)s AND confirmation_token IS NOT NULL RETURNING user_id
"""

Row = Mapping[str, Any]


def enqueue(ids: Sequence[int]) -> Query:
    """Makes a pending delivery of these notifications for everybody who wants digests, once."""
    return Query(_ENQUEUE, {"ids": list(ids)})


def readers(targets: Sequence[UUID]) -> Query:
    """Who of these people still wants mail: rows for `digest_mail`."""
    return Query(_READERS, {"targets": list(targets)})


def unread(ids: Sequence[int], targets: Sequence[UUID]) -> Query:
    """Those of these notifications that were not read, newest first: rows for `digest_mail`."""
    return Query(_UNREAD, {"ids": list(ids), "targets": list(targets)})


def silence(user_id: UUID) -> Query:
    """Nothing more is sent to somebody."""
    return Query(_SILENCE, {"user_id": user_id})


def claim_confirmations(limit: int) -> Query:
    """Claims people who are to be asked whether an address is theirs: user_id, confirmation_token, email."""
    return Query(_CLAIM_CONFIRMATIONS, {"limit": limit})


def ask_again(user_id: UUID, seconds: float) -> Query:
    """Asks somebody later, as it could not be done now."""
    return Query(_ASK_AGAIN, {"user_id": user_id, "seconds": seconds})


def unsubscribe_url(public_url: str, token: str) -> str:
    """Where digests are ended."""
    return f"{public_url}/unsubscribe/{token}"


def confirm_url(public_url: str, token: str) -> str:
    """Where an address is confirmed."""
    return f"{public_url}/confirm_email/{token}"


def digest_mail(
    reader: Row, notifications: Sequence[Row], *, instance: str, sender: str, public_url: str, now: datetime
) -> EmailMessage:
    """The mail, as text and HTML; `notifications` are not empty and newest first."""
    count = len(notifications)
    heading = f"{count} new notification{'' if count == 1 else 's'} on {instance}"
    lines = [_line(row, public_url) for row in notifications[:SHOWN]]
    more = f"And {count - SHOWN} more." if count > SHOWN else ""
    stop = unsubscribe_url(public_url, reader["unsubscribe_token"])
    text = [f"Hello {reader['display_name'] or reader['username']},", "", f"{heading}:", ""]
    for what, quote, url in lines:
        text += [f"* {what}", *([f"  {quote}"] if quote else []), f"  {url}"]
    text += ["", *([more, ""] if more else []), f"Read them: {public_url}", f"No more of these mails: {stop}", ""]
    items = "".join(
        f'<li><p><a href="{escape(url)}">{escape(what)}</a>' + (f"<br>{escape(quote)}" if quote else "") + "</p></li>"
        for what, quote, url in lines
    )
    body = (
        f"<h1>{escape(heading)}</h1><ul>{items}</ul>"
        + (f"<p>{more}</p>" if more else "")
        + f'<p><a href="{escape(public_url)}">Read them</a></p>'
        f'<p><small><a href="{escape(stop)}">No more of these mails</a></small></p>'
    )
    message = _mail(reader["email"], heading, "\n".join(text), body, instance, sender, public_url, now)
    message["List-Unsubscribe"] = f"<{stop}>"
    message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    return message


def confirmation_mail(
    email: str, token: str, *, instance: str, sender: str, public_url: str, now: datetime
) -> EmailMessage:
    """The mail that asks whether an address belongs to whoever has given it."""
    url = confirm_url(public_url, token)
    heading = f"Confirm your e-mail address for {instance}"
    text = (
        f"Somebody wants notifications from {instance} at this address. If that was you, open\n\n{url}\n\n"
        "If not, do nothing, and there will be no mail.\n"
    )
    body = (
        f"<h1>{escape(heading)}</h1><p>Somebody wants notifications from {escape(instance)} at this address.</p>"
        f'<p><a href="{escape(url)}">That was me</a></p><p>If not, do nothing, and there will be no mail.</p>'
    )
    return _mail(email, heading, text, body, instance, sender, public_url, now)


def _mail(
    email: str, subject: str, text: str, body: str, instance: str, sender: str, public_url: str, now: datetime
) -> EmailMessage:
    message = EmailMessage()
    message["From"] = formataddr((instance, sender))
    message["To"] = email
    message["Subject"] = subject
    message["Date"] = format_datetime(now)
    message["Message-ID"] = make_msgid(domain=urlsplit(public_url).hostname)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    message.add_alternative(
        f'<!doctype html><html lang="en"><head><title>{escape(subject)}</title></head><body>{body}</body></html>',
        subtype="html",
    )
    return message


def _line(row: Row, public_url: str) -> tuple[str, str, str]:
    """What happened, the text it is about, and where to look."""
    quote = excerpt(row["spoiler_text"] or row["text"] or "", MAX_EXCERPT)
    what = title(row["type"], row["sender"])
    if row["author_username"] is not None:
        return what, quote, f"{profile_url(public_url, row['author_username'])}/{row['post_id']}"
    if row["sender_username"] is not None:
        return what, quote, profile_url(public_url, row["sender_username"])
    return what, quote, public_url
