"""The keys that sign access tokens: Ed25519, in table `signing_keys`, the newest one signs.

A rotated-out key has `retired_at` and verifies until the last token that it signed has expired. Processes read the
table when they start, each minute, and when a token names a key that they do not know.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from api.database import Database
from api.errors import ApiError

ALGORITHM = "EdDSA"
REFRESH_SECONDS = 60.0
# An unknown key id makes us look again at most this often, so that forged tokens cost no query each.
UNKNOWN_KEY_SECONDS = 1.0

SELECT_KEYS = """
SELECT kid, private_key, retired_at IS NULL AS active FROM signing_keys
WHERE algorithm = 'EdDSA' AND (retired_at IS NULL OR retired_at > now() - %(days)s * interval '1 day')
ORDER BY created_at, kid
"""
INSERT_KEY = """
INSERT INTO signing_keys (kid, algorithm, private_key) VALUES (%(kid)s, 'EdDSA', %(private_key)s)
"""
LIST_KEYS = "SELECT kid, algorithm, created_at, retired_at FROM signing_keys ORDER BY created_at, kid"
RETIRE_OTHERS = """
UPDATE signing_keys SET retired_at = now() WHERE algorithm = 'EdDSA' AND kid <> %(kid)s AND retired_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The usable keys at one moment."""

    signing_id: str | None
    signing_key: Ed25519PrivateKey | None
    public: Mapping[str, Ed25519PublicKey]


def new_key() -> dict[str, str]:
    """A fresh key as the parameters of `INSERT_KEY`; contains the secret."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {"kid": uuid4().hex, "private_key": pem.decode()}


def key_ring(rows: list[dict[str, Any]]) -> KeyRing:
    """The keys of `SELECT_KEYS`' rows."""
    public: dict[str, Ed25519PublicKey] = {}
    signing_id = signing_key = None
    for row in rows:
        private = load_pem_private_key(row["private_key"].encode(), None)
        assert isinstance(private, Ed25519PrivateKey)
        public[row["kid"]] = private.public_key()
        if row["active"]:
            signing_id, signing_key = row["kid"], private
    return KeyRing(signing_id, signing_key, public)


class SigningKeys:
    """This process' copy of the keys, read from the database."""

    def __init__(self, database: Database, token_days: int) -> None:
        self._database = database
        self._days = token_days
        self._ring = KeyRing(None, None, {})
        self._read_at = float("-inf")

    async def signing(self) -> tuple[str, Ed25519PrivateKey]:
        """The key that signs now; the very first one is made here."""
        if time.monotonic() - self._read_at > REFRESH_SECONDS or self._ring.signing_key is None:
            await self._read()
        if self._ring.signing_key is None:
            await self._database.execute(INSERT_KEY, new_key())
            await self._read()
        if self._ring.signing_id is None or self._ring.signing_key is None:
            raise ApiError(503, "There is no signing key")
        return self._ring.signing_id, self._ring.signing_key

    async def verifying(self, kid: str) -> Ed25519PublicKey | None:
        """The key with the given id, if it exists and has not been retired for longer than a token lives."""
        age = time.monotonic() - self._read_at
        if age > REFRESH_SECONDS or (kid not in self._ring.public and age > UNKNOWN_KEY_SECONDS):
            await self._read()
        return self._ring.public.get(kid)

    async def _read(self) -> None:
        self._ring = key_ring(await self._database.rows(SELECT_KEYS, {"days": self._days}))
        self._read_at = time.monotonic()
