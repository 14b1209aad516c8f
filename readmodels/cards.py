"""Cards: what never differs between viewers of an account or a status, as JSON that is ready to serve.

Layout (documents, see readmodels/documents.py):

    a:{<user id>}   the members of the Account entity, without the braces and the counts
    s:{<post id>}   author (16), in_reply_to_account (16, zero: none), original id (8, zero: no repost), id of the
                    thread's first post (8), poll id (8, zero: none), then the members of the Status entity, without the
                    braces, account, reblog, counts, viewer flags and poll (which is there, null, if there is none)

A reader joins the members of cards, counts and flags into entities without encoding anything.
"""

from dataclasses import dataclass

import msgspec

from readmodels.documents import GONE_SECONDS, Kind, Row
from readmodels.entities import Entity, account_entity, status_entity
from readmodels.entity_queries import ACCOUNTS_BY_ID, STATUSES_BY_ID

_HEADER = 56
_NOBODY = bytes(16)


@dataclass(frozen=True, slots=True)
class StatusCard:
    """A status card taken apart; accounts are 16-byte ids, `original` and `poll` are 0 when there is none.

    `conversation` is the id of the thread's first post, by which a viewer mutes it.
    """

    author: bytes
    in_reply_to_account: bytes | None
    original: int
    conversation: int
    poll: int
    members: bytes


def members(entity: Entity) -> bytes:
    """The JSON of an object without its braces."""
    return bytes(msgspec.json.encode(entity)[1:-1])


def _status_body(row: Row, public_url: str) -> bytes:
    in_reply_to_account = row["in_reply_to_account_id"]
    return b"".join(
        (
            row["author_id"].bytes,
            in_reply_to_account.bytes if in_reply_to_account else _NOBODY,
            (row["repost_of_id"] or 0).to_bytes(8),
            row["conversation_id"].to_bytes(8),
            (row["poll_id"] or 0).to_bytes(8),
            members(status_entity(row, public_url)),
        )
    )


def status_card(body: bytes) -> StatusCard:
    """A status card from the body of its document."""
    in_reply_to_account = body[16:32]
    return StatusCard(
        author=body[:16],
        in_reply_to_account=in_reply_to_account if in_reply_to_account != _NOBODY else None,
        original=int.from_bytes(body[32:40]),
        conversation=int.from_bytes(body[40:48]),
        poll=int.from_bytes(body[48:_HEADER]),
        members=body[_HEADER:],
    )


ACCOUNT_CARD = Kind(
    "account_card", b"a", ACCOUNTS_BY_ID, lambda row, url: members(account_entity(row, url)), gone_seconds=GONE_SECONDS
)
STATUS_CARD = Kind("status_card", b"s", STATUSES_BY_ID, _status_body)
