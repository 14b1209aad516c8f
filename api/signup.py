"""Sign-up: an application with its own token makes an account and gets the person's token back."""

from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from api.auth.identities import check_sign_up, insert_person
from api.auth.oauth import token_entity
from api.auth.principal import require_application
from api.body import read_body
from api.context import context_of
from api.database import Transaction
from api.errors import forbidden, unprocessable
from api.outbox import Outbox
from api.responses import json_response

routes = web.RouteTableDef()

Text = Annotated[str, Meta(max_length=4_096)]


class SignUp(Struct):
    """Parameters of POST /api/v1/accounts."""

    username: Text = ""
    email: Text = ""
    password: Text = ""
    agreement: bool = False
    locale: Annotated[str, Meta(max_length=35)] = "en"
    reason: Text = ""


@routes.post("/api/v1/accounts")
async def sign_up(request: web.Request) -> web.Response:
    """Make an account; answers with the new person's token, which has the scopes of the application's own."""
    principal = require_application(request, "write:accounts")
    context = context_of(request)
    if principal.user_id is not None:
        raise forbidden("This method needs an application's own token")
    if not context.settings.registrations_open:
        raise forbidden("Registrations are closed")
    form = await read_body(request, SignUp, with_query=False)
    check_sign_up(form.username, form.email, form.password)
    if not form.agreement:
        raise unprocessable("Validation failed: Agreement must be accepted")
    password_hash = await context.passwords.hash(form.password)

    encoder = await context.events.encoder()

    async def body(transaction: Transaction) -> dict[str, object]:
        user_id = await insert_person(transaction, form.username, form.email, password_hash, form.locale)
        await Outbox(transaction, encoder).account_created(user_id, form.username, form.locale)
        token, created_at = await context.tokens.issue(transaction, principal.application_id, user_id, principal.scopes)
        return token_entity(token, principal.scopes, created_at)

    return json_response(await context.database.transaction(body))
