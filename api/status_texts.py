"""What a status that is written or edited may say."""

from typing import Annotated

from msgspec import Meta

from api.errors import unprocessable
from fanline.content import clean

MAX_CHARACTERS = 5_000

Language = Annotated[str, Meta(max_length=35)]
"""An ISO 639 code, as clients send it."""


def texts(status: str | None, spoiler: str | None) -> tuple[str, str]:
    """The clean text and content warning; raises `ApiError` 422 when they are too long together."""
    text, spoiler_text = clean(status or ""), clean(spoiler or "").replace("\n", " ")
    if len(text) + len(spoiler_text) > MAX_CHARACTERS:
        raise unprocessable(f"Validation failed: Text character limit of {MAX_CHARACTERS} exceeded")
    return text, spoiler_text


def require_text(text: str) -> None:
    """Raises `ApiError` 422 for a status that says nothing."""
    if not text:
        raise unprocessable("Validation failed: Text can't be blank")


def refuse_missing_features(media_ids: list[str] | None, scheduled_at: str | None) -> None:
    """Raises `ApiError` 422 for what this server cannot do, rather than posting something else."""
    if media_ids:
        raise unprocessable("Validation failed: media attachments are not supported yet")
    if scheduled_at:
        raise unprocessable("Validation failed: scheduled statuses are not supported")
