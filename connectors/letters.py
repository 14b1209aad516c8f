"""What a dead-letter topic says: letters, and which of them an operator has replayed or dropped.

The topic is a log of both. A resolution is a record with the header `resolution` (`replayed` or `dropped`) whose
value lists the offsets of the letters in the topic: `{"offsets": [[first, last], ...]}`. A record that was rejected
again after a replay is a new letter. One that a crash has made the flow reject twice is one letter.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from connectors.messages import Message

Resolution = Literal["replayed", "dropped"]
RESOLUTION = "resolution"
OWN_HEADERS_AFTER = ("reason", "original_topic", "original_partition", "original_offset", "original_timestamp")
OMITTED = "omitted_value_bytes"


class Origin(NamedTuple):
    """Where a rejected record was."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Letter:
    """A rejected record as its dead letter tells of it, without key and value."""

    offset: int
    """In the dead-letter topic."""
    rejected_ms: int
    reason: str
    origin: Origin
    original_ms: int
    replays: int = 0
    """How often it had been sent back before."""
    omitted_bytes: int | None = None
    """Size of a value that was too large for the letter."""

    @property
    def kind(self) -> str:
        """The reason without the numbers that differ from record to record."""
        return re.sub(r"\d+", "#", self.reason)


def letter_of(record: Message) -> Letter:
    """The letter in a record; one that somebody else has put there is its own origin."""
    headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    try:
        origin = Origin(headers["original_topic"], int(headers["original_partition"]), int(headers["original_offset"]))
        original_ms = int(headers["original_timestamp"])
    except (KeyError, ValueError):
        origin, original_ms = Origin(record.topic, record.partition, record.offset), record.timestamp_ms
    return Letter(
        offset=record.offset,
        rejected_ms=record.timestamp_ms,
        reason=headers.get("reason", "The letter has no reason."),
        origin=origin,
        original_ms=original_ms,
        replays=_number(headers.get("replays")) or 0,
        omitted_bytes=_number(headers.get(OMITTED)),
    )


def own_headers(record: Message) -> list[tuple[str, bytes | None]]:
    """The headers that the rejected record had in its own topic."""
    headers = list(record.headers)
    if tuple(name for name, _ in headers[: len(OWN_HEADERS_AFTER)]) == OWN_HEADERS_AFTER:
        headers = headers[len(OWN_HEADERS_AFTER) :]
    return [(name, value) for name, value in headers if name != OMITTED]


def resolution_of(record: Message) -> tuple[Resolution, list[range]] | None:
    """What a record resolves; None when it is a letter."""
    # A letter's first header is its reason; further back a rejected record may have headers of any name.
    name, how = record.headers[0] if record.headers else ("", b"")
    if name != RESOLUTION:
        return None
    ranges = [range(first, last + 1) for first, last in json.loads(record.value or b"")["offsets"]]
    return ("replayed" if how == b"replayed" else "dropped"), ranges


def resolution_value(offsets: Iterable[int]) -> bytes:
    """The value of the record that resolves letters."""
    ranges: list[list[int]] = []
    for offset in sorted(offsets):
        if ranges and ranges[-1][1] == offset - 1:
            ranges[-1][1] = offset
        else:
            ranges.append([offset, offset])
    return json.dumps({"offsets": ranges}).encode()


@dataclass
class Ledger:
    """The letters of a flow that nobody has dealt with, from all records of its topic in order."""

    letters: dict[Origin, Letter] = field(default_factory=dict)
    resolved: Counter[str] = field(default_factory=Counter)
    """Letters by what has become of them."""

    def __post_init__(self) -> None:
        self._origins: dict[int, Origin] = {}

    def take(self, record: Message) -> None:
        """Note a record."""
        found = resolution_of(record)
        if found is None:
            letter = letter_of(record)
            # The newest of several for one record stands for all.
            self.letters[letter.origin] = letter
            self._origins[letter.offset] = letter.origin
            return
        how, ranges = found
        for each in ranges:
            for offset in [offset for offset in self._origins if offset in each]:
                self._resolve(offset, how)

    def open(self) -> Sequence[Letter]:
        """The letters in the order of their offsets."""
        return sorted(self.letters.values(), key=lambda letter: letter.offset)

    def _resolve(self, offset: int, how: Resolution) -> None:
        origin = self._origins.pop(offset)
        letter = self.letters.get(origin)
        if letter is not None and letter.offset == offset:
            del self.letters[origin]
            self.resolved[how] += 1


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
