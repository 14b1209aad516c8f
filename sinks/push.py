"""Sends Web Push messages (RFC 8030, encrypted by RFC 8291): one request a message, and what became of it."""

import socket
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from pywebpush import WebPusher, WebPushException

from fanline.endpoints import endpoint_fault, is_public
from fanline.vapid import VapidKey
from sinks.outcome import SENT, Outcome

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
# Signing costs a millisecond; a push service takes one signature for hours.
SIGNATURE_SECONDS = 3_600.0
MAX_SIGNATURES = 1_000
LONGEST_WAIT_SECONDS = 24 * 3600.0


class PublicResolver(AbstractResolver):
    """Resolves names to public addresses only: what a name says when it is called is what counts."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses; raises `OSError` when there is no public one."""
        found = await self._resolver.resolve(host, port, family)
        public = [each for each in found if is_public(each["host"])]
        if not public:
            raise OSError(None, f"{host} has no public address")
        return public

    async def close(self) -> None:
        """Nothing is kept open."""
        await self._resolver.close()


class PushSender:
    """Sends; made and closed inside one event loop."""

    def __init__(self, key: VapidKey, subject: str, *, allow_private: bool, ttl_seconds: int) -> None:
        self._key, self._subject, self._allow_private, self._ttl = key, subject, allow_private, ttl_seconds
        connector = aiohttp.TCPConnector(
            resolver=None if allow_private else PublicResolver(),
            # A kept connection that the server closes at this moment would leave open whether it took the message.
            force_close=True,
            limit=0,
        )
        timeout = aiohttp.ClientTimeout(total=CONNECT_SECONDS + ANSWER_SECONDS, connect=CONNECT_SECONDS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        self._signatures: dict[str, tuple[float, str]] = {}

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def send(self, endpoint: str, p256dh: str, auth: str, data: bytes) -> Outcome:
        """Encrypt and send one message; never raises for what a subscription or a push service gets wrong."""
        fault = endpoint_fault(endpoint, allow_private=self._allow_private)
        if fault is not None:
            return Outcome("failed", f"The endpoint {fault}.")
        try:
            keys = {"endpoint": endpoint, "keys": {"p256dh": p256dh, "auth": auth}}
            body = WebPusher(keys).encode(data, "aes128gcm")["body"]
        except (ValueError, TypeError, IndexError, WebPushException) as error:
            return Outcome("failed", f"The subscription's keys cannot be used: {error}.")
        headers = {
            "Authorization": self._authorization(endpoint),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(self._ttl),
            "Urgency": "normal",
        }
        try:
            async with self._session.post(endpoint, data=body, headers=headers, allow_redirects=False) as answer:
                return _outcome(answer.status, answer.headers)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            return Outcome("retry", f"The push service cannot be reached: {error}.", unreached=True)
        except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError
            return Outcome("unknown", f"The push service did not answer: {error!r}.", unreached=True)

    def _authorization(self, endpoint: str) -> str:
        audience = endpoint.split("/", 3)[2]
        now = time.monotonic()
        made_at, header = self._signatures.get(audience, (float("-inf"), ""))
        if now - made_at > SIGNATURE_SECONDS:
            if len(self._signatures) >= MAX_SIGNATURES:
                self._signatures.clear()
            header = self._key.authorization(endpoint, self._subject, int(time.time()))
            self._signatures[audience] = now, header
        return header


def _outcome(status: int, headers: Mapping[str, str]) -> Outcome:
    if 200 <= status < 300:
        return SENT
    reason = f"The push service answers {status}."
    if status in (404, 410):
        return Outcome("gone", reason)
    if status in (408, 429) or status >= 500:
        return Outcome("retry", reason, after_seconds=_retry_after(headers.get("Retry-After")))
    return Outcome("failed", reason)


def _retry_after(text: str | None) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)
