import json
import time
from typing import Any
from uuid import UUID

import pytest

from connectors.events import YOUNG_MS, EventDecoder
from connectors.messages import Message, Progress, event_id
from tests.unit.letters import Letters

EVENT = UUID("00000000-0000-4000-8000-000000000001")
PROGRESS = Progress("follow.created", 0, 1)
HEADERS = (("type", b"follow.created"), ("id", str(EVENT).encode()))


def message(age_ms: int = 0, headers: Any = HEADERS) -> Message:
    return Message("follow.created", 0, 0, b"key", b"event", headers, time.time_ns() // 1_000_000 - age_ms)


def decode(message: Message, convert: Any = None) -> tuple[list[Any], list[str], list[set[UUID]]]:
    rejected, waits = Letters(), []
    decoder = EventDecoder(lambda _: {"follower_id": "a"}, rejected, convert, lambda ids: waits.append(set(ids)))  # type: ignore[arg-type]
    return decoder([message, PROGRESS]), [reason for _, reason in rejected.found], waits


def test_an_event_is_named_after_its_topic_and_progress_keeps_its_place() -> None:
    (event, progress), reasons, _ = decode(message())
    assert (event.name, event.fields, progress, reasons) == ("follow.created", {"follower_id": "a"}, PROGRESS, [])


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ({"after": {"blocker_id": "a", "blocked_id": "b"}, "before": None, "updated": "3.0"}, "false"),
        ({"after": None, "before": {"blocker_id": "a", "blocked_id": "b"}, "updated": "4.0"}, "true"),
        ({"resolved": "4.0"}, None),
    ],
)
def test_a_row_among_the_events_may_come_from_a_changefeed(value: dict[str, Any], made: str | None) -> None:
    record = Message("cdc.blocks", 0, 0, b'["a", "b"]', json.dumps(value).encode(), (), 0)
    *events, progress = decode(record)[0]
    columns = {"blocker_id": "a", "blocked_id": "b", "__deleted": made}
    assert [event.fields for event in events] == ([] if made is None else [columns])
    assert progress == PROGRESS


def test_a_batch_waits_for_the_outbox_rows_of_its_events() -> None:
    assert decode(message())[2] == [{EVENT}]


@pytest.mark.parametrize("old", [message(age_ms=YOUNG_MS + 1000), message(headers=())])
def test_nothing_is_awaited_for_old_events_and_for_those_without_a_row(old: Message) -> None:
    assert decode(old)[2] == []


def test_events_that_mean_nothing_to_the_flow_are_dropped_and_not_awaited() -> None:
    assert decode(message(), lambda _: None) == ([PROGRESS], [], [])


def test_an_event_that_cannot_be_used_becomes_a_dead_letter_with_its_reason() -> None:
    made, reasons, _ = decode(message(), lambda event: event.fields["followee_id"])
    assert made == [PROGRESS]
    assert reasons == ["The event follow.created cannot be used: KeyError('followee_id')."]


@pytest.mark.parametrize("headers", [(), (("id", None),), (("id", b"x"),), (("type", b"post.created"),)])
def test_a_record_that_names_no_outbox_row_has_no_event_id(headers: Any) -> None:
    assert event_id(message(headers=headers)) is None
