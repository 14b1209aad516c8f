"""Applications, sign-up, tokens, sessions and keys over the real servers."""

import asyncio
import hashlib
from base64 import b64encode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.auth.principal import Principal
from api.auth.tokens import sign
from tests.conftest import Stack
from tests.integration.api_world import OUT_OF_BAND, PASSWORD, SCOPES, Api, Person, running_api

CALLBACK = "https://client.example/callback?fixed=1"


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def register(api: Api, redirect_uri: str = CALLBACK, scopes: str = SCOPES) -> dict[str, Any]:
    form = {"client_name": "c", "redirect_uris": redirect_uri, "scopes": scopes}
    app: dict[str, Any] = (await api.post("/api/v1/apps", json=form)).ok()
    return app


async def consent(api: Api, app: dict[str, Any], person: Person, **fields: str) -> Any:
    form = {
        "response_type": "code",
        "client_id": app["client_id"],
        "redirect_uri": CALLBACK,
        "scope": "read",
        "state": "s t",
        "username": person.username,
        "password": PASSWORD,
        "decision": "allow",
        **fields,
    }
    return await api.post("/oauth/authorize", data=form)


async def exchange(api: Api, app: dict[str, Any], code: str, **fields: str) -> Any:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "client_id": app["client_id"],
        "client_secret": app["client_secret"],
        "redirect_uri": CALLBACK,
        **fields,
    }
    return await api.post("/oauth/token", data=form)


def code_of(answer: Any) -> str:
    assert answer.status == 302, answer.body
    query = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert query["fixed"] == ["1"]
    assert query["state"] == ["s t"]
    return query["code"][0]


async def test_an_application_is_told_its_secret_once(api: Api) -> None:
    app = await register(api)
    assert app["client_secret"]
    token = (await api.client()).token
    seen = (await api.get("/api/v1/apps/verify_credentials", token)).ok()
    assert seen["name"] == "tests"
    assert "client_secret" not in seen


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"client_name": "c"},
        {"client_name": "c", "redirect_uris": "no uri"},
        {"client_name": "c", "redirect_uris": "javascript:alert(1)"},
        {"client_name": "c", "redirect_uris": "https://a.example/#x"},
        {"client_name": "c", "redirect_uris": OUT_OF_BAND, "scopes": "everything"},
        {"client_name": "c", "redirect_uris": OUT_OF_BAND, "website": "javascript:x"},
        {"client_name": "c" * 201, "redirect_uris": OUT_OF_BAND},
    ],
)
async def test_an_application_that_cannot_be_used_is_refused(api: Api, form: dict[str, str]) -> None:
    (await api.post("/api/v1/apps", data=form)).fails(422)


async def test_a_person_signs_up_and_signs_in_by_name_or_address(api: Api) -> None:
    person = await api.person("ann")
    client = await api.client()
    for name in (person.username, person.username.upper(), f"{person.username}@example.org"):
        grant = {
            "grant_type": "password",
            "username": name,
            "password": PASSWORD,
            "client_id": client.client_id,
            "client_secret": client.client_secret,
            "scope": "read",
        }
        token = (await api.post("/oauth/token", data=grant)).ok()
        assert token["scope"] == "read"
        me = (await api.get("/api/v1/accounts/verify_credentials", token["access_token"])).ok()
        assert me["id"] == person.id


async def test_a_name_that_is_taken_in_another_case_is_refused(api: Api) -> None:
    person = await api.person("ann")
    form = {"username": person.username.upper(), "email": "x@example.org", "password": PASSWORD, "agreement": "1"}
    assert "Username" in (await api.post("/api/v1/accounts", (await api.client()).token, data=form)).fails(422)


async def test_nobody_signs_up_without_agreeing_or_with_somebodys_token(api: Api) -> None:
    person = await api.person("ann")
    form = {"username": "new_one", "email": "new@example.org", "password": PASSWORD}
    (await api.post("/api/v1/accounts", (await api.client()).token, data=form)).fails(422)
    (await api.post("/api/v1/accounts", person, data=form)).fails(403)
    (await api.post("/api/v1/accounts", data=form)).fails(401)


async def test_wrong_passwords_are_refused_and_soon_no_longer_tried(migrated: Stack) -> None:
    async with running_api(migrated.settings, sign_in_failures=3) as api:
        person = await api.person("ann")
        client = await api.client()
        grant = {
            "grant_type": "password",
            "username": person.username,
            "password": "wrong",
            "client_id": client.client_id,
            "client_secret": client.client_secret,
        }
        for _ in range(3):
            assert (await api.post("/oauth/token", data=grant)).fails(400) == "invalid_grant"
        (await api.post("/oauth/token", data=grant | {"password": PASSWORD})).fails(429)


async def test_a_code_with_pkce_gives_a_token_once(api: Api) -> None:
    app, person = await register(api), await api.person("ann")
    verifier = "v" * 64
    challenge = urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    pkce = {"code_challenge": challenge, "code_challenge_method": "S256"}
    page = await api.get(
        "/oauth/authorize",
        params={
            "response_type": "code",
            "client_id": app["client_id"],
            "redirect_uri": CALLBACK,
            "state": '"><x>',
            **pkce,
        },
    )
    assert page.status == 200
    assert b"<x>" not in page.body
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    code = code_of(await consent(api, app, person, **pkce))
    assert (await exchange(api, app, code, code_verifier="wrong")).fails(400) == "invalid_grant"
    code = code_of(await consent(api, app, person, **pkce))
    token = (await exchange(api, app, code, code_verifier=verifier)).ok()["access_token"]
    assert (await api.get("/api/v1/accounts/verify_credentials", token)).ok()["id"] == person.id
    assert (await exchange(api, app, code, code_verifier=verifier)).fails(400) == "invalid_grant"


async def test_a_code_is_good_only_where_it_was_sent_and_for_whom(api: Api) -> None:
    app, other, person = await register(api), await register(api), await api.person("ann")
    code = code_of(await consent(api, app, person))
    (await exchange(api, other, code)).fails(400)
    (await exchange(api, app, code, redirect_uri="https://evil.example/")).fails(400)


async def test_a_code_can_be_shown_on_the_page(api: Api) -> None:
    app, person = await register(api, OUT_OF_BAND), await api.person("ann")
    answer = await consent(api, app, person, redirect_uri=OUT_OF_BAND)
    code = answer.body.decode().split("<code>")[1].split("</code>")[0]
    (await exchange(api, app, code, redirect_uri=OUT_OF_BAND)).ok()


async def test_consent_needs_the_password_and_can_be_refused(api: Api) -> None:
    app, person = await register(api), await api.person("ann")
    assert (await consent(api, app, person, password="wrong")).status == 401
    refused = await consent(api, app, person, decision="deny")
    assert parse_qs(urlsplit(refused.headers["Location"]).query)["error"] == ["access_denied"]


async def test_nobody_is_sent_to_an_address_that_was_not_registered(api: Api) -> None:
    app, person = await register(api), await api.person("ann")
    (await consent(api, app, person, redirect_uri="https://evil.example/")).fails(400)
    (await consent(api, {"client_id": "unknown"}, person)).fails(401)


async def test_an_application_gets_no_more_than_it_registered_for(api: Api) -> None:
    app, person = await register(api, scopes="read:accounts"), await api.person("ann")
    answer = await consent(api, app, person, scope="read write")
    assert parse_qs(urlsplit(answer.headers["Location"]).query)["error"] == ["invalid_scope"]


async def test_an_application_may_name_itself_in_the_header(api: Api) -> None:
    app = await register(api)
    basic = b64encode(f"{app['client_id']}:{app['client_secret']}".encode()).decode()
    grant = {"grant_type": "client_credentials"}
    (await api.post("/oauth/token", data=grant, headers={"Authorization": f"Basic {basic}"})).ok()
    (await api.post("/oauth/token", data=grant, headers={"Authorization": "Basic !"})).fails(401)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "x" * 5_000, "é"])
async def test_what_is_no_token_is_refused(api: Api, token: str) -> None:
    (await api.get("/api/v1/accounts/verify_credentials", token)).fails(401)


async def test_forged_expired_and_unknown_tokens_are_refused(api: Api) -> None:
    person = await api.person("ann")
    kid, key = await api.context.tokens._keys.signing()
    honest = await api.context.tokens.read(person.token)
    now = datetime.now(UTC)

    async def refused(principal: Principal, signing_key: Ed25519PrivateKey = key, key_id: str = kid) -> None:
        token = sign(principal, key_id, signing_key, "issuer", now)
        (await api.get("/api/v1/accounts/verify_credentials", token)).fails(401)

    await refused(honest, Ed25519PrivateKey.generate())
    await refused(honest, key_id="unknown")
    later = int((now - timedelta(seconds=5)).timestamp() * 1_000)
    await refused(Principal(honest.session_id, honest.application_id, honest.user_id, honest.scopes, later))
    await refused(Principal(uuid4(), honest.application_id, honest.user_id, honest.scopes, honest.expires_ms))
    claims = jwt.decode(person.token, options={"verify_signature": False})
    unsigned = jwt.encode(claims, "", "none", headers={"kid": kid})
    (await api.get("/api/v1/accounts/verify_credentials", unsigned)).fails(401)


async def test_scopes_are_enforced(api: Api) -> None:
    person = await api.person("ann")
    app = await register(api, scopes="read:statuses")
    code = code_of(await consent(api, app, person, scope="read:statuses"))
    token = (await exchange(api, app, code)).ok()["access_token"]
    (await api.get(f"/api/v1/accounts/{person.id}", token)).ok()
    (await api.get("/api/v1/accounts/verify_credentials", token)).fails(403)
    (await api.post("/api/v1/statuses", token, data={"status": "x"})).fails(403)


async def test_what_needs_a_person_is_refused_to_an_application(api: Api) -> None:
    (await api.post("/api/v1/statuses", (await api.client()).token, data={"status": "x"})).fails(422)
    (await api.post("/api/v1/statuses", data={"status": "x"})).fails(401)


async def test_a_revoked_token_stops_here_at_once_and_elsewhere_within_two_seconds(migrated: Stack) -> None:
    async with running_api(migrated.settings) as api, running_api(migrated.settings) as other:
        person = await api.person("ann")
        client = await api.client()
        (await other.get("/api/v1/accounts/verify_credentials", person)).ok()
        form = {"token": person.token, "client_id": client.client_id, "client_secret": client.client_secret}
        (await api.post("/oauth/revoke", data=form)).ok()
        (await api.get("/api/v1/accounts/verify_credentials", person)).fails(401)

        async def stopped() -> None:
            while (await other.get("/api/v1/accounts/verify_credentials", person)).status != 401:
                continue  # each look is a request, which waits

        await asyncio.wait_for(stopped(), 2)


async def test_another_application_cannot_revoke_a_token(api: Api) -> None:
    person, app = await api.person("ann"), await register(api)
    form = {"token": person.token, "client_id": app["client_id"], "client_secret": app["client_secret"]}
    (await api.post("/oauth/revoke", data=form)).fails(403)
    (await api.get("/api/v1/accounts/verify_credentials", person)).ok()


async def test_without_redis_the_database_answers_for_sessions(migrated: Stack) -> None:
    async with running_api(migrated.settings) as api:
        person = await api.person("ann")
        client = await api.client()
        async with running_api(migrated.settings, redis_url=_Nowhere()) as alone:
            (await alone.get("/api/v1/accounts/verify_credentials", person)).ok()
            assert (await alone.get("/health/ready")).ok()["status"] == "degraded"
            form = {"token": person.token, "client_id": client.client_id, "client_secret": client.client_secret}
            (await alone.post("/oauth/revoke", data=form)).ok()
            (await alone.get("/api/v1/accounts/verify_credentials", person)).fails(401)


class _Nowhere:
    """A Redis address at which nothing listens."""

    def get_secret_value(self) -> str:
        return "redis://127.0.0.1:1"


async def test_tokens_of_a_rotated_key_stay_good_and_new_ones_are_signed_by_the_new_key(migrated: Stack) -> None:
    async with running_api(migrated.settings) as api:
        before = await api.person("ann")
    printed = migrated.fanline("keys", "rotate").stdout
    async with running_api(migrated.settings) as api:
        after = await api.person("bob")
        (await api.get("/api/v1/accounts/verify_credentials", before)).ok()
        old, new = (jwt.get_unverified_header(person.token)["kid"] for person in (before, after))
        assert old != new
        assert new in printed
    listed = migrated.fanline("keys", "list").stdout
    assert "PRIVATE" not in listed
    assert UUID(new).hex in listed


async def test_the_server_describes_itself(api: Api) -> None:
    described = (await api.get("/.well-known/oauth-authorization-server")).ok()
    assert described["token_endpoint"] == f"{api.context.public_url}/oauth/token"
    assert described["code_challenge_methods_supported"] == ["S256"]
