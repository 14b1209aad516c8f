"""OAuth scopes: which exist, and what a granted one allows."""

TOP_LEVEL = ("read", "write", "follow", "push", "profile")
_READ = (
    "accounts",
    "blocks",
    "bookmarks",
    "favourites",
    "filters",
    "follows",
    "lists",
    "mutes",
    "notifications",
    "search",
    "statuses",
)
_WRITE = (
    "accounts",
    "blocks",
    "bookmarks",
    "conversations",
    "favourites",
    "filters",
    "follows",
    "lists",
    "media",
    "mutes",
    "notifications",
    "reports",
    "statuses",
)
SCOPES = (*TOP_LEVEL, *(f"read:{name}" for name in _READ), *(f"write:{name}" for name in _WRITE))
"""Every scope that a client may ask for, in the order in which they are documented."""

DEFAULT = "read"
_KNOWN = frozenset(SCOPES)
# `follow` is older than the granular scopes and stands for these.
_FOLLOW = frozenset(f"{verb}:{name}" for verb in ("read", "write") for name in ("blocks", "follows", "mutes"))


def parse(text: str) -> frozenset[str]:
    """The scopes in a space- or plus-separated list; raises `ValueError` with the first unknown one."""
    scopes = frozenset(text.replace("+", " ").split())
    unknown = sorted(scopes - _KNOWN)
    if unknown:
        raise ValueError(unknown[0])
    return scopes


def join(scopes: frozenset[str]) -> str:
    """The scopes as a space-separated list in documented order."""
    return " ".join(scope for scope in SCOPES if scope in scopes)


def allows(granted: frozenset[str], required: str) -> bool:
    """Whether a token with the granted scopes may do what needs the required one."""
    if required in granted or required.partition(":")[0] in granted:
        return True
    if required == "profile":
        return "read" in granted or "read:accounts" in granted
    return "follow" in granted and required in _FOLLOW


def within(asked: frozenset[str], registered: frozenset[str]) -> bool:
    """Whether an application registered with some scopes may ask for these."""
    return all(allows(registered, scope) for scope in asked)
