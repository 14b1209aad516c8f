"""Access tokens: signed JWTs that name their session.

Claims: `iss` the public URL, `sid` the session, `sub` the person (absent for an application's own token), `client_id`
the application, `scope`, `iat`, `exp`. A verified token is remembered in this process, so that the next request with it
costs a dictionary look-up; its session is asked for again after `RECHECK_SECONDS`, or after a second while the process
cannot hear of revocations. A revoked token therefore stops at once in the process that revoked it, within about
half a second in the others, and within `RECHECK_SECONDS` if Redis loses a message.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.auth.keys import ALGORITHM, SigningKeys
from api.auth.principal import Principal
from api.auth.scopes import join
from api.auth.sessions import Sessions, scopes_of
from api.database import Transaction
from api.errors import unauthorized

RECHECK_SECONDS = 30.0
DEAF_RECHECK_SECONDS = 1.0
MAX_REMEMBERED = 100_000
MAX_TOKEN_CHARACTERS = 4_096


@dataclass(slots=True)
class _Remembered:
    principal: Principal
    checked_at: float


class Tokens:
    """Issues and verifies access tokens."""

    def __init__(self, keys: SigningKeys, sessions: Sessions, issuer: str, days: int) -> None:
        self._keys = keys
        self._sessions = sessions
        self._issuer = issuer
        self._days = days
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._by_session: dict[UUID, str] = {}
        self._on_forget: list[Callable[[UUID], None]] = []

    async def issue(
        self, transaction: Transaction, application_id: UUID, user_id: UUID | None, scopes: frozenset[str]
    ) -> tuple[str, datetime]:
        """A new session's token, and when it was made; the session is part of the caller's transaction."""
        kid, key = await self._keys.signing()
        now = datetime.now(UTC)
        expires_at = now + timedelta(days=self._days)
        principal = Principal(uuid4(), application_id, user_id, scopes, int(expires_at.timestamp() * 1_000))
        await self._sessions.add(transaction, principal, expires_at)
        return sign(principal, kid, key, self._issuer, now), now

    async def verify(self, token: str) -> Principal:
        """Whom the token speaks for; raises `ApiError` 401."""
        remembered = self._remembered.get(token)
        now = time.monotonic()
        if remembered is not None:
            good_for = RECHECK_SECONDS if self._sessions.hears_revocations else DEAF_RECHECK_SECONDS
            if now - remembered.checked_at < good_for and remembered.principal.expires_ms > time.time() * 1_000:
                return remembered.principal
        principal = await self.read(token)
        if not await self._sessions.is_good(principal.session_id):
            self.forget(principal.session_id)
            raise unauthorized("The access token was revoked")
        self._remember(token, principal, now)
        return principal

    async def read(self, token: str) -> Principal:
        """What a token with a good signature says, its session not asked; raises `ApiError` 401."""
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise unauthorized()
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = await self._keys.verifying(kid) if isinstance(kid, str) else None
            if key is None:
                raise unauthorized()
            # The key says whose token it is, so `iss` need not: a deployment may be reached under several addresses.
            claims = jwt.decode(
                token, key, [ALGORITHM], options={"require": ["exp", "iat", "sid"], "verify_iss": False}
            )
            return _principal(claims)
        except jwt.ExpiredSignatureError as error:
            raise unauthorized("The access token expired") from error
        except (jwt.InvalidTokenError, ValueError, KeyError, TypeError) as error:
            raise unauthorized() from error

    def on_forget(self, callback: Callable[[UUID], None]) -> None:
        """Have something called with each session that turns out to have ended."""
        self._on_forget.append(callback)

    def forget(self, session_id: UUID) -> None:
        """The session has ended: ask for it again at the next request, and tell whoever wants to know."""
        for callback in self._on_forget:
            callback(session_id)
        token = self._by_session.pop(session_id, None)
        if token is not None:
            self._remembered.pop(token, None)

    def _remember(self, token: str, principal: Principal, now: float) -> None:
        self._remembered[token] = _Remembered(principal, now)
        self._by_session[principal.session_id] = token
        while len(self._remembered) > MAX_REMEMBERED:
            _, oldest = self._remembered.popitem(last=False)
            self._by_session.pop(oldest.principal.session_id, None)


def sign(principal: Principal, kid: str, key: Ed25519PrivateKey, issuer: str, now: datetime) -> str:
    """The signed token of a session."""
    claims: dict[str, Any] = {
        "iss": issuer,
        "sid": str(principal.session_id),
        "client_id": str(principal.application_id),
        "scope": join(principal.scopes),
        "iat": int(now.timestamp()),
        "exp": principal.expires_ms // 1_000,
    }
    if principal.user_id is not None:
        claims["sub"] = str(principal.user_id)
    return jwt.encode(claims, key, ALGORITHM, headers={"kid": kid})


def _principal(claims: dict[str, Any]) -> Principal:
    subject = claims.get("sub")
    return Principal(
        UUID(claims["sid"]),
        UUID(claims["client_id"]),
        None if subject is None else UUID(subject),
        scopes_of(claims["scope"]),
        int(claims["exp"]) * 1_000,
    )
