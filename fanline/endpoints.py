"""Which addresses that a client has named this server may call."""

from ipaddress import ip_address
from urllib.parse import urlsplit

MAX_CHARACTERS = 2_048


def endpoint_fault(endpoint: str, *, allow_private: bool) -> str | None:
    """What is wrong with a push endpoint, None if nothing is; its name is resolved only when it is called."""
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is no URL"
    if len(endpoint) > MAX_CHARACTERS or not endpoint.isascii() or any(character <= " " for character in endpoint):
        return "is no URL"
    if parts.username is not None or parts.password is not None:
        return "must not contain credentials"
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        return "must begin with https://"
    if not host:
        return "names no host"
    if not allow_private and not is_public_name(host):
        return "must be a public address"
    return None


def is_public_name(host: str) -> bool:
    """False for private addresses, and for names that never are public."""
    try:
        return is_public(host)
    except ValueError:
        name = host.rstrip(".").lower()
        return "." in name and not name.endswith((".localhost", ".local", ".internal", ".home.arpa"))


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet; raises `ValueError` when it is none."""
    parsed = ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    parsed = mapped or parsed
    return parsed.is_global and not parsed.is_multicast
