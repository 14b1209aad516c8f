"""Rows of a poll: what a client may ask for, inserted with its post, changed, voted on."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct

from api.database import Row, Transaction
from api.errors import unprocessable
from fanline.content import clean
from fanline.ids import TimeOrderedIds

# Mastodon's own limits, which clients know when they have not asked for the server's.
MAX_OPTIONS = 4
MAX_OPTION_CHARACTERS = 50
MIN_SECONDS = 300
MAX_SECONDS = 2_629_746

INSERT_POLL = """
INSERT INTO polls (id, post_id, multiple, hide_totals, expires_at)
VALUES (%(id)s, %(post_id)s, %(multiple)s, %(hide_totals)s, %(expires_at)s)
"""
INSERT_OPTIONS = """
INSERT INTO poll_options (poll_id, position, title)
SELECT %(id)s, unnest(%(positions)s::smallint[]), unnest(%(titles)s::text[])
"""
UPDATE_POLL = "UPDATE polls SET hide_totals = %(hide_totals)s, expires_at = %(expires_at)s WHERE id = %(id)s"
DELETE_POLL = "DELETE FROM polls WHERE id = %(id)s"
SELECT_OF_POST = """
SELECT l.id, l.multiple,
       ARRAY(SELECT o.title FROM poll_options o WHERE o.poll_id = l.id ORDER BY o.position) AS titles
FROM polls l WHERE l.post_id = %(post_id)s
"""


class NewPoll(Struct):
    """The parameter `poll` of POST and PUT of statuses."""

    options: Annotated[list[str], Meta(max_length=100)]
    expires_in: int
    """Seconds from now."""
    multiple: bool = False
    hide_totals: bool = False


def checked(poll: NewPoll) -> NewPoll:
    """The poll with clean titles; raises `ApiError` 422 with Mastodon's words for what is wrong."""
    titles = [title for option in poll.options if (title := clean(option).replace("\n", " "))]
    if len(titles) < 2:
        raise unprocessable("Validation failed: Options must have more than one item")
    if len(titles) > MAX_OPTIONS:
        raise unprocessable(f"Validation failed: Options can't contain more than {MAX_OPTIONS} items")
    if any(len(title) > MAX_OPTION_CHARACTERS for title in titles):
        raise unprocessable(f"Validation failed: Options cannot be longer than {MAX_OPTION_CHARACTERS} characters each")
    if len(set(titles)) < len(titles):
        raise unprocessable("Validation failed: Options contain duplicate items")
    if poll.expires_in < MIN_SECONDS:
        raise unprocessable("Validation failed: Expires at is too soon")
    if poll.expires_in > MAX_SECONDS:
        raise unprocessable("Validation failed: Expires at is too far into the future")
    return NewPoll(titles, poll.expires_in, poll.multiple, poll.hide_totals)


async def poll_of_post(transaction: Transaction, post_id: int) -> Row | None:
    """The post's poll: `id`, `multiple` and `titles` in their order."""
    return await transaction.row(SELECT_OF_POST, {"post_id": post_id})


async def insert_poll(transaction: Transaction, ids: TimeOrderedIds, post_id: int, poll: NewPoll) -> None:
    """Insert a checked poll."""
    identifier = ids.next()
    await transaction.execute(INSERT_POLL, {**_columns(poll, identifier), "post_id": post_id})
    positions = list(range(len(poll.options)))
    await transaction.execute(INSERT_OPTIONS, {"id": identifier, "positions": positions, "titles": poll.options})


async def change_poll(
    transaction: Transaction, ids: TimeOrderedIds, post_id: int, earlier: Row | None, wanted: NewPoll | None
) -> None:
    """Make a post's poll (`poll_of_post`) as wanted (checked; None: no poll).

    The same options to choose from stay the same poll, whose end and secrecy may change. Anything else is another
    poll, with an id of its own and no votes.
    """
    if is_same(earlier, wanted):
        if earlier is not None and wanted is not None:
            await transaction.execute(UPDATE_POLL, _columns(wanted, earlier["id"]))
        return
    if earlier is not None:
        await transaction.execute(DELETE_POLL, {"id": earlier["id"]})
    if wanted is not None:
        await insert_poll(transaction, ids, post_id, wanted)


def is_same(earlier: Row | None, wanted: NewPoll | None) -> bool:
    """Whether votes for the earlier poll (`poll_of_post`) are votes for the wanted one, or neither is a poll."""
    if earlier is None or wanted is None:
        return earlier is None and wanted is None
    return bool(earlier["titles"] == wanted.options and earlier["multiple"] == wanted.multiple)


def _columns(poll: NewPoll, identifier: int) -> Row:
    return {
        "id": identifier,
        "multiple": poll.multiple,
        "hide_totals": poll.hide_totals,
        "expires_at": datetime.now(UTC) + timedelta(seconds=poll.expires_in),
    }


INSERT_VOTES = """
INSERT INTO poll_votes (poll_id, voter_id, position) SELECT %(id)s, %(voter)s, unnest(%(positions)s::smallint[])
"""
# Two votes at once of the same person must not both be the first; those of others are not held up.
LOCK_VOTER = "SELECT id FROM users WHERE id = %(voter)s FOR NO KEY UPDATE"
SELECT_FOR_VOTE = """
SELECT l.id, l.post_id, l.multiple, l.expires_at <= clock_timestamp() AS ended, p.author_id,
       (SELECT count(*) FROM poll_options o WHERE o.poll_id = l.id) AS options,
       EXISTS (SELECT 1 FROM poll_votes v WHERE v.poll_id = l.id AND v.voter_id = %(voter)s) AS voted
FROM polls l JOIN posts p ON p.id = l.post_id
WHERE l.id = %(id)s
"""


async def insert_votes(transaction: Transaction, poll_id: int, voter: UUID, choices: Sequence[int]) -> Row | None:
    """Vote; the poll's `post_id` and `author_id`, None when there is no such poll.

    Raises `ApiError` 422 with Mastodon's words for a vote that does not count.
    """
    await transaction.execute(LOCK_VOTER, {"voter": voter})
    row = await transaction.row(SELECT_FOR_VOTE, {"id": poll_id, "voter": voter})
    if row is None:
        return None
    positions = list(dict.fromkeys(choices))
    if row["ended"]:
        raise unprocessable("Validation failed: The poll has already ended")
    if row["author_id"] == voter:
        raise unprocessable("Validation failed: You cannot vote in your own polls")
    if row["voted"]:
        raise unprocessable("Validation failed: You have already voted on this poll")
    if not positions or not all(0 <= position < row["options"] for position in positions):
        raise unprocessable("Validation failed: The chosen vote option does not exist")
    if len(positions) > 1 and not row["multiple"]:
        raise unprocessable("Validation failed: Only one option can be chosen in this poll")
    await transaction.execute(INSERT_VOTES, {"id": poll_id, "voter": voter, "positions": positions})
    return row
