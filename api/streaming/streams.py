"""The streams that a client may listen to, as Mastodon names them, and what each of them asks for."""

from dataclasses import dataclass

import msgspec

from api.auth.principal import Principal
from api.auth.scopes import allows
from api.errors import ApiError, bad_request, forbidden, unprocessable

USER = "user"
NOTIFICATIONS = "user:notification"
PUBLIC = frozenset(["public", "public:local", "public:media", "public:local:media"])
# This server knows no other, so nothing ever comes from one.
REMOTE = frozenset(["public:remote", "public:remote:media"])
HASHTAG = frozenset(["hashtag", "hashtag:local"])
NOT_OFFERED = frozenset(["list", "direct"])

MAX_TAG_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream; `tag` is a hashtag in lower case, empty for the other kinds."""

    name: str
    tag: str = ""

    @property
    def is_personal(self) -> bool:
        """Whether it shows what one person is shown."""
        return self.name in (USER, NOTIFICATIONS)

    @property
    def label(self) -> bytes:
        """What a frame's `stream` says: JSON."""
        return msgspec.json.encode([self.name, self.tag] if self.tag else [self.name])


def parse_stream(name: str, tag: str = "") -> Stream:
    """The stream of a request; raises `ApiError` 400 for one that is not offered or is not known."""
    if name in NOT_OFFERED:
        raise bad_request(f"The stream {name} is not offered by this server")
    if name in HASHTAG:
        tag = tag.strip().removeprefix("#").lower()
        if not tag or len(tag) > MAX_TAG_CHARACTERS:
            raise bad_request("The parameter tag is missing or too long")
        return Stream(name, tag)
    if name in PUBLIC or name in REMOTE or name in (USER, NOTIFICATIONS):
        return Stream(name)
    raise bad_request(f"Unknown stream: {name[:50]}")


def check_access(stream: Stream, principal: Principal) -> None:
    """Raises `ApiError` 403 when the token does not allow the stream, 422 when it stands for no person."""
    scope = "read:notifications" if stream.name == NOTIFICATIONS else "read:statuses"
    if not allows(principal.scopes, scope):
        raise forbidden("This action is outside the authorized scopes")
    if stream.is_personal and principal.user_id is None:
        raise unprocessable("This method requires an authenticated user")


def shows_notifications(stream: Stream, principal: Principal) -> bool:
    """Whether the stream carries the person's notifications."""
    return stream.is_personal and allows(principal.scopes, "read:notifications")


def error_frame(error: ApiError) -> bytes:
    """What a WebSocket is sent when it asks for what it cannot have."""
    return msgspec.json.encode({"error": error.message, "status": error.status})
