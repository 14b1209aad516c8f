"""`/api/v1/push/subscription`: where a session wants to be told of notifications. One subscription a session."""

from base64 import urlsafe_b64decode
from typing import Annotated, Any
from uuid import uuid4

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Meta, Struct, field
from psycopg.types.json import Jsonb

from api.auth.principal import Principal, require_application, require_user, token_of
from api.body import read_body
from api.context import Context, context_of
from api.database import Row
from api.errors import not_found, unprocessable
from api.responses import json_response
from fanline.endpoints import endpoint_fault
from fanline.vapid import INSERT_KEY, SELECT_KEY, VapidKey, new_private_key
from readmodels.entities import Entity
from readmodels.push import ALERTS, POLICIES

routes = web.RouteTableDef()

# The key never changes while it is in use; a process asks again now and then all the same.
KEY_SECONDS = 3_600.0
AUTH_BYTES = 16

COLUMNS = "id, endpoint, alerts, policy"
UPSERT = f"""
INSERT INTO push_subscriptions (id, session_id, user_id, endpoint, key_p256dh, key_auth, alerts, policy, sealed_token)
VALUES (%(id)s, %(session_id)s, %(user_id)s, %(endpoint)s, %(p256dh)s, %(auth)s, %(alerts)s, %(policy)s, %(token)s)
ON CONFLICT (session_id) DO UPDATE
SET id = excluded.id, endpoint = excluded.endpoint, key_p256dh = excluded.key_p256dh, key_auth = excluded.key_auth,
    alerts = excluded.alerts, policy = excluded.policy, sealed_token = excluded.sealed_token, created_at = now(),
    updated_at = now()
RETURNING {COLUMNS}
"""
SELECT = f"SELECT {COLUMNS} FROM push_subscriptions WHERE session_id = %(session_id)s"
UPDATE = f"""
UPDATE push_subscriptions SET alerts = %(alerts)s, policy = coalesce(%(policy)s, policy), updated_at = now()
WHERE session_id = %(session_id)s RETURNING {COLUMNS}
"""
DELETE = "DELETE FROM push_subscriptions WHERE session_id = %(session_id)s"

Text = Annotated[str, Meta(max_length=2_048)]


class Keys(Struct):
    """The browser's keys, base64url."""

    p256dh: Text = ""
    auth: Text = ""


class Subscription(Struct):
    """Where to push to, as the browser's PushSubscription has it."""

    endpoint: Text = ""
    keys: Keys = field(default_factory=Keys)


class Data(Struct):
    """What to push."""

    alerts: dict[str, Any] = {}
    policy: str | None = None


class Wanted(Struct):
    """Parameters of POST and PUT."""

    subscription: Subscription = field(default_factory=Subscription)
    data: Data = field(default_factory=Data)
    policy: str | None = None


@routes.post("/api/v1/push/subscription")
async def subscribe(request: web.Request) -> web.Response:
    """Subscribe, in place of what the session had."""
    principal, context = _caller(request), context_of(request)
    form = await read_body(request, Wanted)
    endpoint, keys = form.subscription.endpoint, form.subscription.keys
    fault = endpoint_fault(endpoint, allow_private=context.settings.push_private_endpoints)
    if fault is not None:
        raise unprocessable(f"Validation failed: Endpoint {fault}")
    _check_keys(keys)
    # What is pushed names it; it must be the very one by which the client knows its account.
    token = (await _server_key(context)).seal(token_of(request))
    row = await context.database.transaction(
        lambda transaction: transaction.row(
            UPSERT,
            {
                "id": uuid4(),
                "session_id": principal.session_id,
                "user_id": principal.user_id,
                "endpoint": endpoint,
                "p256dh": keys.p256dh,
                "auth": keys.auth,
                "alerts": Jsonb(_alerts(form)),
                "policy": _policy(form) or "all",
                "token": token,
            },
        )
    )
    return await _answer(context, row)


@routes.get("/api/v1/push/subscription")
async def show(request: web.Request) -> web.Response:
    """The session's subscription."""
    principal, context = _caller(request), context_of(request)
    return await _answer(context, await context.database.row(SELECT, {"session_id": principal.session_id}))


@routes.put("/api/v1/push/subscription")
async def change(request: web.Request) -> web.Response:
    """Change what is pushed."""
    principal, context = _caller(request), context_of(request)
    form = await read_body(request, Wanted)
    parameters = {
        "session_id": principal.session_id,
        "alerts": Jsonb(_alerts(form)),
        "policy": _policy(form),
    }
    row = await context.database.transaction(lambda transaction: transaction.row(UPDATE, parameters))
    return await _answer(context, row)


@routes.delete("/api/v1/push/subscription")
async def unsubscribe(request: web.Request) -> web.Response:
    """Push nothing more to this session."""
    principal, context = _caller(request), context_of(request)
    await context.database.execute(DELETE, {"session_id": principal.session_id})
    return json_response({})


async def server_key(context: Context) -> str:
    """The public key that clients subscribe with."""
    return (await _server_key(context)).public


async def _server_key(context: Context) -> VapidKey:
    """This server's key; the very first one is made here."""

    async def load() -> VapidKey:
        text = context.settings.vapid_private_key.get_secret_value()
        if not text:
            row = await context.database.row(SELECT_KEY)
            if row is None:
                await context.database.execute(INSERT_KEY, {"private_key": new_private_key()})
                row = await context.database.row(SELECT_KEY)
            assert row is not None
            text = row["private_key"]
        return VapidKey(text)

    key: VapidKey = await context.kept("vapid", KEY_SECONDS, load)
    return key


def _caller(request: web.Request) -> Principal:
    require_user(request, "push")
    return require_application(request, "push")


def _alerts(form: Wanted) -> dict[str, bool]:
    return {name: form.data.alerts.get(name) in (True, 1, "true", "1", "on") for name in ALERTS}


def _policy(form: Wanted) -> str | None:
    policy = form.data.policy or form.policy
    if policy is not None and policy not in POLICIES:
        raise unprocessable(f"Validation failed: Policy must be one of {', '.join(POLICIES)}")
    return policy


def _check_keys(keys: Keys) -> None:
    """Raises `ApiError` 422: with other keys nothing could ever be encrypted."""
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _decoded(keys.p256dh))
        if len(_decoded(keys.auth)) != AUTH_BYTES:
            raise ValueError("auth")
    except ValueError as error:
        raise unprocessable("Validation failed: the subscription's keys cannot be used") from error


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text.translate(str.maketrans("+/", "-_")).rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))


async def _answer(context: Context, row: Row | None) -> web.Response:
    if row is None:
        raise not_found()
    entity: Entity = {
        "id": str(row["id"]),
        "endpoint": row["endpoint"],
        "alerts": {name: bool(row["alerts"].get(name)) for name in ALERTS},
        "policy": row["policy"],
        "server_key": await server_key(context),
        "standard": True,
    }
    return json_response(entity)
