"""The records in Kafka that tell of a post and a viewer."""

from datetime import datetime
from typing import Any
from uuid import UUID

from audit.why_facts import Facts
from connectors.applied import AppliedOffsets
from connectors.flows import group_of
from connectors.row_history import Record, Wanted, find, long_in_key
from fanline.ids import created_ms
from fanline.settings import Settings

FLOW = "timelines"

_ROWS = {
    "posts": "the post was {}",
    "follows": "the follow was {}",
    "blocks": "the block was {}",
    "mutes": "the mute was {}",
}
_DONE = {"c": "written", "u": "changed", "d": "taken away", "r": "read from the database"}
_EVENTS = {"post.created": "the event that the post was published", "post.deleted": "the event that it was deleted"}


def events_of(settings: Settings, facts: Facts, post_id: int, seconds: float) -> tuple[list[Record], bool]:
    """The records of the post's row and events, and of what is between the viewer and the accounts that it is by."""
    made = created_ms(post_id)
    row = (long_in_key(post_id),)
    wanted = [Wanted("cdc.posts", row, made), *(Wanted(topic, (b"%d" % post_id,), made) for topic in _EVENTS)]
    post = facts.post
    if post is not None:
        others = {each for each in (post["author_id"], post["original_author_id"]) if each} - {facts.viewer}
        # Without a follow there may have been one when the post was made.
        since = made if facts.follow is None else _ms(facts.follow["created_at"])
        wanted.append(Wanted("cdc.follows", _pairs(facts.viewer, others), since))
        for table, rows in (("blocks", facts.blocks), ("mutes", facts.mutes)):
            if rows:
                since = min(_ms(each["created_at"]) for each in rows)
                wanted.append(Wanted(f"cdc.{table}", _pairs(facts.viewer, others), since))
    found, complete = find(settings, wanted, seconds)
    return [record for record in found if record.value is not None], complete


def passed_by_flow(settings: Settings, events: list[Record]) -> str | None:
    """How far the timelines flow is from the post's record; None if it has passed it."""
    made = [event for event in events if event.topic == "cdc.posts"]
    if not made:
        return "the post's row is not in Kafka yet"
    place = made[0].topic, made[0].partition
    group = group_of(FLOW)
    committed = AppliedOffsets(settings, "fanline-why").committed({group: [place]})[group][place]
    if committed > made[0].offset:
        return None
    return f"{place[0]} [{place[1]}] offset {made[0].offset} comes {made[0].offset - committed + 1} records later"


def told(record: Record) -> str:
    """A record as a line for people."""
    if record.topic in _EVENTS:
        return _EVENTS[record.topic]
    table = record.topic.partition(".")[2]
    value: Any = record.value if isinstance(record.value, dict) else {}
    op = "d" if value.get("__deleted") == "true" else str(value.get("__op"))
    return _ROWS.get(table, f"a row of {table} was {{}}").format(_DONE.get(op, op))


def _pairs(viewer: UUID, others: set[UUID]) -> tuple[bytes, ...]:
    """What the key of a row between the viewer and one of the others contains, in either direction."""
    me = _text_in_key(viewer)
    return tuple(pair for each in others for pair in (me + _text_in_key(each), _text_in_key(each) + me))


def _text_in_key(account: UUID) -> bytes:
    """How Avro writes a uuid in its 36 characters: their number, zigzag, and they."""
    return b"\x48" + str(account).encode()


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000)
