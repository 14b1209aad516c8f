"""VAPID (RFC 8292): the key pair by which push services know this server.

It is the setting FANLINE_VAPID_PRIVATE_KEY, or made once and kept in table `signing_keys`. Clients subscribe with the
public key, so another key makes every subscription useless. So what a subscription keeps secret is encrypted with a key
that follows from the private one.
"""

from base64 import urlsafe_b64encode
from functools import cached_property
from typing import Final
from urllib.parse import urlsplit

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from py_vapid import Vapid02, VapidException

from fanline.errors import ConfigurationError
from fanline.settings import Settings

KEY_ID: Final = "vapid"
SELECT_KEY: Final = "SELECT private_key FROM signing_keys WHERE kid = 'vapid'"
INSERT_KEY: Final = """
INSERT INTO signing_keys (kid, algorithm, private_key) VALUES ('vapid', 'ES256', %(private_key)s)
ON CONFLICT (kid) DO NOTHING
"""
# A day is the longest that push services accept.
TOKEN_SECONDS: Final = 12 * 3600
_SEALED: Final = b"fanline access tokens of push subscriptions"


def new_private_key() -> str:
    """A fresh private key as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


class VapidKey:
    """The key pair; `private_key` is PEM, or the base64 of DER or of the 32 raw bytes."""

    def __init__(self, private_key: str) -> None:
        try:
            text = private_key.strip()
            if "-----BEGIN" in text:
                self._vapid = Vapid02.from_pem(text.encode())  # type: ignore[no-untyped-call]
            else:
                self._vapid = Vapid02.from_string(text)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, VapidException) as error:
            raise ConfigurationError(f"FANLINE_VAPID_PRIVATE_KEY is no P-256 private key: {error}.") from error

    @property
    def public(self) -> str:
        """The public key as clients take it: base64url of the uncompressed point."""
        point = self._vapid.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return urlsafe_b64encode(point).decode().rstrip("=")

    def authorization(self, endpoint: str, subject: str, now: int) -> str:
        """The `Authorization` header for a push service; `now` in seconds since the epoch."""
        parts = urlsplit(endpoint)
        claims = {"aud": f"{parts.scheme}://{parts.netloc}", "sub": subject, "exp": now + TOKEN_SECONDS}
        return str(self._vapid.sign(claims)["Authorization"])

    def seal(self, text: str) -> str:
        """The text, encrypted so that only this key reads it."""
        return self._box.encrypt(text.encode()).decode()

    def unseal(self, sealed: str) -> str | None:
        """What was sealed; None if it was with another key."""
        try:
            return self._box.decrypt(sealed.encode()).decode()
        except InvalidToken:
            return None

    @cached_property
    def _box(self) -> Fernet:
        secret = self._vapid.private_key.private_numbers().private_value.to_bytes(32)
        return Fernet(urlsafe_b64encode(HKDF(hashes.SHA256(), 32, None, _SEALED).derive(secret)))


def subject_of(settings: Settings, public_url: str) -> str:
    """Whom a push service turns to when it is troubled."""
    if settings.vapid_subject:
        return settings.vapid_subject
    if settings.contact_email:
        return f"mailto:{settings.contact_email}"
    return public_url if public_url.startswith("https://") else "mailto:webmaster@localhost"
