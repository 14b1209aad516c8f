"""What people want by e-mail, and the pages that their mails lead to.

Routes of Fanline's own: Mastodon has no digest in its API. Mail goes only to an address that was confirmed, so whoever
first asks for a digest is first asked by mail whether the address is theirs.
"""

import secrets
from html import escape

from aiohttp import web
from msgspec import Struct

from api.auth.principal import require_user
from api.body import read_body
from api.context import context_of
from api.database import Row, Transaction
from api.errors import not_found, unprocessable
from api.responses import json_response
from readmodels.digest import PERIOD_SQL, PERIODS
from readmodels.entities import Entity

routes = web.RouteTableDef()

SELECT = """
SELECT i.email, i.confirmed_at IS NOT NULL AS confirmed, coalesce(p.digest, 'never') AS digest
FROM identities i LEFT JOIN email_preferences p ON p.user_id = i.user_id
WHERE i.user_id = %(user_id)s
"""
UPSERT = """
INSERT INTO email_preferences AS p (user_id, digest, unsubscribe_token)
VALUES (%(user_id)s, %(digest)s, %(unsubscribe_token)s)
ON CONFLICT (user_id) DO UPDATE SET digest = excluded.digest, next_digest_at = NULL
"""
# A repeated wish makes a repeated question, but not more than one an hour.
ASK = """
UPDATE email_preferences
SET confirmation_token = coalesce(confirmation_token, %(confirmation_token)s), confirmation_due_at = now(),
    updated_at = now()
WHERE user_id = %(user_id)s AND (confirmation_token IS NULL OR updated_at < now() - interval '1 hour')
"""
RESCHEDULE = f"""
UPDATE notification_deliveries SET next_attempt_at = now() + {PERIOD_SQL.format(digest="%(digest)s")}
WHERE channel = 'email' AND target = %(user_id)s AND state = 'pending'
"""
SUBSCRIBER = "SELECT user_id FROM email_preferences WHERE unsubscribe_token = %(token)s"
UNSUBSCRIBE = "UPDATE email_preferences SET digest = 'never', updated_at = now() WHERE unsubscribe_token = %(token)s"
UNCONFIRMED = "SELECT user_id FROM email_preferences WHERE confirmation_token = %(token)s"
CONFIRM = """
UPDATE identities SET confirmed_at = coalesce(confirmed_at, now())
WHERE user_id = (SELECT user_id FROM email_preferences WHERE confirmation_token = %(token)s)
"""
CONFIRMED = """
UPDATE email_preferences SET confirmation_token = NULL, confirmation_due_at = NULL
WHERE confirmation_token = %(token)s
"""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex",
}
_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:26rem;margin:4rem auto;padding:0 1rem;color-scheme:light dark}"
    "button{font:inherit;padding:.4rem 1rem}"
)


class Preferences(Struct):
    """Parameters of PATCH /api/v1/email_preferences."""

    digest: str


@routes.get("/api/v1/email_preferences")
async def preferences(request: web.Request) -> web.Response:
    """How often one gets a digest, and whether one's address is confirmed."""
    user_id = require_user(request, "read:notifications")
    row = await context_of(request).database.row(SELECT, {"user_id": user_id})
    return json_response(_entity(row))


@routes.patch("/api/v1/email_preferences")
async def change(request: web.Request) -> web.Response:
    """Change how often; the first wish for a digest sends the question whether the address is one's own."""
    user_id = require_user(request, "write:notifications")
    form = await read_body(request, Preferences)
    if form.digest not in PERIODS:
        raise unprocessable(f"Validation failed: Digest must be one of {', '.join(PERIODS)}")
    parameters = {
        "user_id": user_id,
        "digest": form.digest,
        "unsubscribe_token": secrets.token_urlsafe(32),
        "confirmation_token": secrets.token_urlsafe(32),
    }

    async def body(transaction: Transaction) -> Row | None:
        await transaction.execute(UPSERT, parameters)
        row = await transaction.row(SELECT, {"user_id": user_id})
        if form.digest != "never":
            await transaction.execute(RESCHEDULE, parameters)
            if row is not None and not row["confirmed"]:
                await transaction.execute(ASK, parameters)
        return row

    return json_response(_entity(await context_of(request).database.transaction(body)))


@routes.get("/unsubscribe/{token}")
async def ask_to_unsubscribe(request: web.Request) -> web.Response:
    """A page with a button: mail scanners open links, and must not end anything by that."""
    await _known(request, SUBSCRIBER)
    return _page(request, "Notifications by e-mail", "You get a digest of your notifications.", "No more mails")


@routes.post("/unsubscribe/{token}")
async def unsubscribe(request: web.Request) -> web.Response:
    """End the digests: the page's button, and the mail client's (RFC 8058), which sends no cookie and no token."""
    await _known(request, SUBSCRIBER)
    await context_of(request).database.execute(UNSUBSCRIBE, {"token": request.match_info["token"]})
    return _page(request, "Notifications by e-mail", "You get no more of these mails.")


@routes.get("/confirm_email/{token}")
async def ask_to_confirm(request: web.Request) -> web.Response:
    """A page with a button."""
    await _known(request, UNCONFIRMED)
    return _page(request, "Your e-mail address", "Do you want notifications at this address?", "Yes, it is mine")


@routes.post("/confirm_email/{token}")
async def confirm(request: web.Request) -> web.Response:
    """The address is confirmed."""
    await _known(request, UNCONFIRMED)
    parameters = {"token": request.match_info["token"]}

    async def body(transaction: Transaction) -> None:
        await transaction.execute(CONFIRM, parameters)
        await transaction.execute(CONFIRMED, parameters)

    await context_of(request).database.transaction(body)
    return _page(request, "Your e-mail address", "Your address is confirmed.")


async def _known(request: web.Request, query: str) -> None:
    if await context_of(request).database.row(query, {"token": request.match_info["token"]}) is None:
        raise not_found()


def _entity(row: Row | None) -> Entity:
    if row is None:
        raise not_found()
    return {"digest": row["digest"], "email": row["email"], "confirmed": row["confirmed"]}


def _page(request: web.Request, heading: str, text: str, button: str = "") -> web.Response:
    title = f"{heading} - {context_of(request).settings.instance_title}"
    form = f'<form method="post" action=""><button>{escape(button)}</button></form>' if button else ""
    html = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f"<main><h1>{escape(heading)}</h1><p>{escape(text)}</p>{form}</main></html>"
    )
    return web.Response(text=html, content_type="text/html", headers=HEADERS)
