"""VAPID (RFC 8292): the key pair by which push services know this server.

It is the setting FANLINE_VAPID_PRIVATE_KEY, or made once and kept in table `signing_keys`. Clients subscribe with the
public key, so another key makes every subscription useless.
"""

from base64 import urlsafe_b64encode
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec
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


def subject_of(settings: Settings, public_url: str) -> str:
    """Whom a push service turns to when it is troubled."""
    if settings.vapid_subject:
        return settings.vapid_subject
    if settings.contact_email:
        return f"mailto:{settings.contact_email}"
    return public_url if public_url.startswith("https://") else "mailto:webmaster@localhost"
