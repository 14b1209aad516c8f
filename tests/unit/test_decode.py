from typing import Any

import pytest

from connectors.decode import Change, ChangeDecoder
from connectors.messages import Message, Progress
from dataflows.followers import step
from dataflows.timelines import arrival
from tests.unit.letters import Letters

PROGRESS = Progress("cdc.follows", 0, 1)
POST = {
    "id": 5, "author_id": "00000000-0000-4000-8000-000000000001", "visibility": "public", "repost_of_id": None,
    "traceparent": None,
}  # fmt: skip
FOLLOW = {"follower_id": POST["author_id"], "followee_id": "00000000-0000-4000-8000-000000000002"}


def message(topic: str, value: bytes | None = b"row") -> Message:
    return Message(topic, 0, 0, b"key", value, [], 0)


def decode(topic: str, row: dict[str, Any], convert: Any, op: str = "c") -> tuple[list[Any], list[str]]:
    about = {"__op": op, "__deleted": None, "__source_sequence": '["1","2"]', "__source_ts_ms": 3}
    rejected = Letters()
    decoder = ChangeDecoder(lambda _: row | about, rejected, convert)  # type: ignore[arg-type]
    return decoder([message(topic), PROGRESS]), [reason for _, reason in rejected.found]


def test_changes_are_converted_and_progress_keeps_its_place() -> None:
    made, letters = decode("cdc.follows", FOLLOW, step)
    assert (made[0].follows, made[0].position, made[1], letters) == (True, (1, 2), PROGRESS, [])


def test_changes_that_mean_nothing_to_the_flow_are_dropped_without_a_letter() -> None:
    assert decode("cdc.posts", POST, arrival, op="u") == ([PROGRESS], [])


@pytest.mark.parametrize(
    ("topic", "row", "convert", "named"),
    [
        ("cdc.follows", {"follower_id": FOLLOW["follower_id"]}, step, "followee_id"),
        ("cdc.follows", FOLLOW | {"followee_id": "not a uuid"}, step, "UUID"),
        ("cdc.posts", POST | {"id": "five"}, arrival, "posts"),
        ("cdc.posts", POST | {"id": -5}, arrival, "posts"),
        ("cdc.posts", {"id": 5}, arrival, "author_id"),
    ],
)
def test_a_row_that_a_flow_cannot_use_becomes_a_dead_letter_that_says_why(
    topic: str, row: dict[str, Any], convert: Any, named: str
) -> None:
    made, [reason] = decode(topic, row, convert)
    assert made == [PROGRESS]
    assert named in reason


def test_nothing_is_passed_on_before_its_transactions_are_visible() -> None:
    about = {"__op": "c", "__deleted": None, "__source_sequence": '["1","2"]', "__source_ts_ms": 3, "__source_txId": 77}
    asked: list[set[int]] = []
    rejected: Any = Letters()
    decoder = ChangeDecoder(lambda _: FOLLOW | about, rejected, step, lambda waited: asked.append(set(waited)))
    decoder([message("cdc.follows"), message("cdc.follows")])
    decoder([PROGRESS])
    assert asked == [{77}]


def test_tombstones_are_dropped() -> None:
    decoder = ChangeDecoder(lambda _: {}, Letters(), lambda change: change)  # type: ignore[arg-type]
    assert decoder([message("cdc.posts", None)]) == []


def test_without_a_conversion_changes_are_passed_on() -> None:
    [change, _], letters = decode("cdc.posts", dict(POST), None)
    assert isinstance(change, Change)
    assert (change.change.row["id"], letters) == (5, [])
