"""Sessions: table `sessions` holds them, Redis answers for them, a revocation reaches every process within a second.

`session:{id}` in Redis is a copy: `ok`, or `revoked`. It lives an hour at most, so that even a copy that missed a
revocation (Redis was down and the process died) is checked against the table again. Revocations of the last minute
are also members of the sorted set `sessions-revoked`, which each process reads twice a second to drop what it has
cached. When Redis is down the table answers.
"""

import time
from collections.abc import Callable
from uuid import UUID

from api.auth.principal import Principal
from api.auth.scopes import parse
from api.database import Database, Transaction
from api.redis_client import RedisClient
from api.redis_connection import RedisReplyError, RedisUnavailable
from fanline.logging import get_logger
from readmodels.effects import Command, command

COPY_SECONDS = 3_600
REVOKED_KEY = b"sessions-revoked"
# How far back a process looks: longer than clocks differ and than one look may be late.
LOOK_BACK_MS = 10_000
KEPT_MS = 60_000

INSERT_SESSION = """
INSERT INTO sessions (id, user_id, application_id, scopes, expires_at)
VALUES (%(id)s, %(user_id)s, %(application_id)s, %(scopes)s, %(expires_at)s)
"""
SELECT_SESSION = """
SELECT s.scopes FROM sessions s LEFT JOIN users u ON u.id = s.user_id
WHERE s.id = %(id)s AND s.revoked_at IS NULL AND s.expires_at > now() AND u.suspended_at IS NULL
"""
# `last_used_at` moves when the copy in Redis has run out: to the hour, and at no cost to a request.
USE_SESSION = """
UPDATE sessions SET last_used_at = now()
WHERE id = %(id)s AND revoked_at IS NULL AND expires_at > now()
  AND NOT EXISTS (SELECT 1 FROM users u WHERE u.id = sessions.user_id AND u.suspended_at IS NOT NULL)
RETURNING id
"""
REVOKE_SESSION = """
UPDATE sessions SET revoked_at = now()
WHERE id = %(id)s AND application_id = %(application_id)s AND revoked_at IS NULL
"""

_log = get_logger(__name__)


class Sessions:
    """Answers whether a session is still good."""

    def __init__(self, database: Database, redis: RedisClient) -> None:
        self._database = database
        self._redis = redis
        self._unannounced: set[UUID] = set()
        self._looked_at = float("-inf")

    @property
    def hears_revocations(self) -> bool:
        """Whether the revocations of the other processes have been read within the last two seconds."""
        return time.monotonic() - self._looked_at < 2.0

    async def is_good(self, session_id: UUID) -> bool:
        """Whether the session exists and is neither revoked nor expired, and its person not suspended."""
        key = _key(session_id)
        try:
            # A Redis that does not answer would cost every request its timeout.
            if not self.hears_revocations:
                raise RedisUnavailable("Redis has not answered for two seconds.")
            (copy,) = await self._redis.execute([command(key, b"GET")])
        except (RedisUnavailable, RedisReplyError):
            return await self._database.row(SELECT_SESSION, {"id": session_id}) is not None
        if copy is not None:
            return bool(copy == b"ok")
        used = await self._database.transaction(lambda transaction: transaction.row(USE_SESSION, {"id": session_id}))
        if used is None:
            return False
        # NX: a revocation that came between the two reads stays.
        await self._tell([command(key, b"SET", b"ok", b"EX", b"%d" % COPY_SECONDS, b"NX")])
        return True

    async def add(self, transaction: Transaction, principal: Principal, expires_at: object) -> None:
        """Insert a session that is about to begin."""
        await transaction.execute(
            INSERT_SESSION,
            {
                "id": principal.session_id,
                "user_id": principal.user_id,
                "application_id": principal.application_id,
                "scopes": " ".join(sorted(principal.scopes)),
                "expires_at": expires_at,
            },
        )

    async def revoke(self, session_id: UUID, application_id: UUID) -> bool:
        """End a session of the application; whether it was going on."""
        changed = await self._database.execute(REVOKE_SESSION, {"id": session_id, "application_id": application_id})
        if changed:
            await self._announce(session_id)
        return changed > 0

    async def listen(self, forget: Callable[[UUID], None]) -> None:
        """Read the recent revocations once and `forget` each; announce again what Redis did not take before."""
        for session_id in list(self._unannounced):
            await self._announce(session_id)
        since = b"%d" % (time.time_ns() // 1_000_000 - LOOK_BACK_MS)
        try:
            (members,) = await self._redis.execute([command(REVOKED_KEY, b"ZRANGEBYSCORE", since, b"+inf")])
        except (RedisUnavailable, RedisReplyError):
            return
        for member in members:
            forget(UUID(bytes=member))
        self._looked_at = time.monotonic()

    async def _announce(self, session_id: UUID) -> None:
        now = time.time_ns() // 1_000_000
        key = _key(session_id)
        told = await self._tell(
            [
                command(key, b"SET", b"revoked", b"EX", b"%d" % COPY_SECONDS),
                command(REVOKED_KEY, b"ZADD", b"%d" % now, session_id.bytes),
                command(REVOKED_KEY, b"ZREMRANGEBYSCORE", b"-inf", b"%d" % (now - KEPT_MS)),
            ]
        )
        if told:
            self._unannounced.discard(session_id)
        else:
            self._unannounced.add(session_id)

    async def _tell(self, commands: list[Command]) -> bool:
        try:
            await self._redis.execute(commands)
        except (RedisUnavailable, RedisReplyError) as error:
            _log.warning("session state was not written to redis", reason=str(error))
            return False
        return True


def scopes_of(text: str) -> frozenset[str]:
    """The scopes of a token; unknown ones, of a newer release, allow nothing."""
    try:
        return parse(text)
    except ValueError:
        return frozenset(text.split())


def _key(session_id: UUID) -> bytes:
    return b"session:{%s}" % str(session_id).encode()
