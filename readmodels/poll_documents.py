"""Polls as they are kept for readers, without what depends on the viewer or on the time.

Layout: `p:{<poll id>}`, a document (readmodels/documents.py) whose body is the row of `POLLS_BY_ID` as JSON: votes for
each option and voters, counted by the database whenever a batch of votes has come.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from readmodels.documents import Kind, Row
from readmodels.entities import Entity
from readmodels.polls import POLLS_BY_ID, poll_entity, poll_flags

_COLUMNS = ("id", "post_id", "author_id", "multiple", "hide_totals", "expires_at", "options", "voters_count")


class PollRow(msgspec.Struct):
    """A row of `POLLS_BY_ID`."""

    id: int
    post_id: int
    author_id: UUID
    multiple: bool
    hide_totals: bool
    expires_at: datetime | None
    options: list[dict[str, Any]]
    voters_count: int


_DECODER = msgspec.json.Decoder(PollRow)


def _body(row: Row, _: str) -> bytes:
    return msgspec.json.encode({name: row[name] for name in _COLUMNS})


def poll_row(body: bytes) -> Row | None:
    """The row in a document's body; None for a poll that does not exist."""
    return msgspec.structs.asdict(_DECODER.decode(body)) if body else None


def poll_json(row: Row, viewer: UUID, own_votes: list[int], now: datetime) -> bytes:
    """The Poll entity as a viewer sees it now."""
    entity: Entity = poll_entity(row, now) | poll_flags(own_votes, row["author_id"] == viewer)
    return msgspec.json.encode(entity)


POLL = Kind("poll", b"p", POLLS_BY_ID, _body)
