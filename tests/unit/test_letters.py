"""What a dead-letter topic says, and how a record goes back to its flow."""

import random
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from connectors.cli_dlq import parse_offsets, select
from connectors.letters import Ledger, Letter, Origin, letter_of, own_headers, resolution_of, resolution_value
from connectors.messages import Message, Replayed
from connectors.payload import readable
from connectors.present import captured, excluded
from connectors.replay import replayed, retry_headers
from fanline.errors import ConfigurationError


def letter(offset: int, origin: int, reason: str = "why", own: tuple[tuple[str, bytes], ...] = ()) -> Message:
    headers = [
        ("reason", reason.encode()),
        ("original_topic", b"cdc.posts"),
        ("original_partition", b"2"),
        ("original_offset", b"%d" % origin),
        ("original_timestamp", b"1700000000000"),
        *own,
    ]
    return Message("dead-letter.cards", 0, offset, b"key", b"value", headers, 1_700_000_001_000)


def resolution(how: str, offsets: list[int], offset: int = 99) -> Message:
    headers = [("resolution", how.encode())]
    return Message("dead-letter.cards", 0, offset, None, resolution_value(offsets), headers, 1_700_000_002_000)


def ledger(*records: Message) -> Ledger:
    made = Ledger()
    for record in records:
        made.take(record)
    return made


def test_a_letter_tells_where_its_record_was_and_why_it_was_rejected() -> None:
    found = letter_of(letter(7, 41, "It has 3 bytes.", (("traceparent", b"00-1"), ("replays", b"2"))))
    assert found.origin == Origin("cdc.posts", 2, 41)
    assert (found.offset, found.reason, found.original_ms, found.replays) == (
        7,
        "It has 3 bytes.",
        1_700_000_000_000,
        2,
    )
    assert found.kind == "It has # bytes."


def test_a_record_that_was_rejected_twice_because_of_a_crash_is_one_letter() -> None:
    assert [found.offset for found in ledger(letter(0, 41), letter(1, 42), letter(2, 41)).open()] == [1, 2]


def test_what_was_replayed_or_dropped_is_not_open_any_more() -> None:
    records = [letter(offset, offset) for offset in range(6)]
    found = ledger(*records, resolution("replayed", [0, 1, 2]), resolution("dropped", [4], 100))
    assert [each.offset for each in found.open()] == [3, 5]
    assert found.resolved == {"replayed": 3, "dropped": 1}


def test_a_record_that_is_rejected_again_after_its_replay_is_open_again() -> None:
    found = ledger(letter(0, 41), resolution("replayed", [0], 1), letter(2, 41))
    assert [each.offset for each in found.open()] == [2]


def test_resolving_the_older_of_two_letters_for_one_record_leaves_the_newer_open() -> None:
    found = ledger(letter(0, 41), letter(1, 41), resolution("dropped", [0], 2))
    assert [each.offset for each in found.open()] == [1]
    found.take(resolution("dropped", [1], 3))
    found.take(resolution("dropped", [0, 1], 4))
    assert not found.open()
    assert found.resolved == {"dropped": 1}


def test_a_rejected_record_cannot_pass_for_a_resolution() -> None:
    poison = letter(0, 41, own=(("resolution", b"dropped"),))
    assert resolution_of(poison) is None
    assert len(ledger(poison).open()) == 1


def test_a_record_of_somebody_else_in_the_topic_is_a_letter_too() -> None:
    found = letter_of(Message("dead-letter.cards", 0, 3, None, b"x", (), 5))
    assert found.origin == Origin("dead-letter.cards", 0, 3)
    assert found.original_ms == 5


def test_ranges_of_offsets_say_what_was_put_in() -> None:
    for seed in range(50):
        dice = random.Random(seed)
        offsets = dice.sample(range(60), dice.randrange(40))
        found = resolution_of(resolution("dropped", offsets))
        assert found is not None
        assert sorted(offset for each in found[1] for offset in each) == sorted(offsets)


def test_a_record_comes_back_as_it_was_with_its_own_headers_and_the_number_of_its_replays() -> None:
    rejected = letter(7, 41, own=(("id", b"1"), ("traceparent", b"00-1")))
    found = letter_of(rejected)
    headers = retry_headers(*found.origin, found.original_ms, own_headers(rejected))
    back = replayed(Message("retry.cards", 2, 5, rejected.key, rejected.value, headers, 1_800_000_000_000))
    assert isinstance(back, Replayed)
    assert back[:5] == ("cdc.posts", 2, 41, b"key", b"value")
    assert dict(back.headers) == {"replays": b"1", "id": b"1", "traceparent": b"00-1"}
    assert back.timestamp_ms == 1_700_000_000_000
    # Its progress is that of the retry topic.
    assert back.place == ("retry.cards", 2)
    again = retry_headers("cdc.posts", 2, 41, 0, back.headers)
    assert dict(again)["replays"] == b"2"


@pytest.mark.parametrize("headers", [(), (("original_topic", b"cdc.posts"),), letter(1, 2).headers])
def test_a_record_in_a_retry_topic_that_does_not_say_where_it_was_is_recognised(headers: object) -> None:
    assert replayed(Message("retry.cards", 0, 0, None, None, headers, 0)) is None  # type: ignore[arg-type]


def test_options_choose_letters() -> None:
    letters = [
        Letter(0, 0, "no schema 7", Origin("cdc.posts", 0, 1), 0),
        Letter(1, 0, "No Schema 8", Origin("cdc.users", 0, 1), 0),
        Letter(2, 0, "other", Origin("cdc.posts", 1, 1), 0),
    ]
    assert [each.offset for each in select(letters, "schema", "", None, "")] == [0, 1]
    assert [each.offset for each in select(letters, "", "cdc.posts", 1, "")] == [2]
    assert [each.offset for each in select(letters, "", "", 0, "1-5")] == [1]


@pytest.mark.parametrize("text", ["x", "1-", "-1", "1,,2", "1-2-3", "1,2-3-4", "7-3", "+1", "1_0"])
def test_offsets_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no offsets"):
        parse_offsets(text)


def test_offsets_and_ranges_of_them_are_read() -> None:
    assert parse_offsets("3, 7-9,5-5") == [range(3, 4), range(7, 10), range(5, 6)]


def test_bytes_are_shown_as_text_or_in_hexadecimal_digits_and_cut() -> None:
    assert readable(b"plain") == "plain"
    assert readable(b"\x00\xff") == "0x00ff"
    assert readable(b"a" * 300) == "a" * 200 + " ... 300 bytes"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05.000000Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 120_000, tzinfo=UTC), "2026-01-02T03:04:05.120000Z"),
        (datetime(2026, 1, 2, 3, 0, 0, 1, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T01:00:00.000001Z"),
        (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        ([UUID(int=5)], ["00000000-0000-0000-0000-000000000005"]),
        (7, 7),
        (None, None),
    ],
)
def test_a_column_reads_as_debezium_captures_it(value: object, text: object) -> None:
    assert captured(value) == text


def test_columns_that_are_not_captured_are_left_out() -> None:
    assert ("posts", "text") in excluded()
    assert ("posts", "author_id") not in excluded()
