"""The archive: every domain event as a row of a Parquet file.

Layout: `<topic>/day=<UTC day>/<generation>-<partition>-<first>-<last>.parquet`, for example
`post.created/day=2026-11-22/9f3c01ab-0002-00000000000000000500-00000000000000000999.parquet`.

A file holds every event of one partition whose record is of that day and whose offset is in `first..last`, and no
other. So the name says what the content is; whoever writes the range again writes the same file. `generation` is
the start of the topic's id in Kafka: a topic that is made anew counts its offsets from 0 again.

A file whose range lies inside another's (same topic, day, generation and partition) is superseded: compaction has
put its rows into the larger one and deletes it later. Readers take the files that `current` names, and so see each
row once before, during and after a compaction, without a manifest that writer and compaction would have to share.
"""

import re
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime

from fanline.errors import FanlineError

DAY_MS = 86_400_000
GENERATION_CHARACTERS = 8

_NAME = re.compile(
    r"(?P<topic>[^/]+)/day=(?P<day>\d{4}-\d\d-\d\d)/"
    r"(?P<generation>[0-9a-f]{8})-(?P<partition>\d{4})-(?P<first>\d{20})-(?P<last>\d{20})\.parquet"
)

Series = tuple[str, date, str, int]
"""Topic, day, generation and partition: the files of a series are ordered by their offsets."""


class OverlappingFiles(FanlineError):
    """Two files of the archive share some offsets, but neither holds all of the other's."""


@dataclass(frozen=True, order=True, slots=True)
class ArchiveFile:
    """One file of the archive, by its name."""

    topic: str
    day: date
    generation: str
    partition: int
    first: int
    last: int

    @property
    def path(self) -> str:
        """Where it is below the archive's root."""
        return (
            f"{folder_of(self.topic, self.day)}/"
            f"{self.generation}-{self.partition:04}-{self.first:020}-{self.last:020}.parquet"
        )

    @property
    def series(self) -> Series:
        """What it has in common with the files before and after it."""
        return self.topic, self.day, self.generation, self.partition


def folder_of(topic: str, day: date) -> str:
    """The folder of a topic's day, below the archive's root."""
    return f"{topic}/day={day.isoformat()}"


def day_of(timestamp_ms: int) -> date:
    """The UTC day of a record's timestamp in milliseconds since the epoch."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).date()


def parse(path: str) -> ArchiveFile | None:
    """The file of a path below the root; None for something else, such as a file that is being written."""
    match = _NAME.fullmatch(path)
    if match is None:
        return None
    return ArchiveFile(
        match["topic"],
        date.fromisoformat(match["day"]),
        match["generation"],
        int(match["partition"]),
        int(match["first"]),
        int(match["last"]),
    )


def current(files: Iterable[ArchiveFile]) -> list[ArchiveFile]:
    """The files to read, without those superseded, in order.

    Raises `OverlappingFiles` when two share offsets in another way: two writers had one partition at a time.
    """
    kept: list[ArchiveFile] = []
    # Of two files that start together the longer one comes first.
    for file in sorted(set(files), key=lambda each: (each.series, each.first, -each.last)):
        before = kept[-1] if kept and kept[-1].series == file.series else None
        if before is None or file.first > before.last:
            kept.append(file)
        elif file.last > before.last:
            raise OverlappingFiles(
                f"The archive has offsets {file.first} to {before.last} of {file.topic} [{file.partition}] twice, in "
                f"{before.path} and {file.path}: two processes wrote one partition at the same time. Delete the later "
                "file, then let the flow archive read the topic again from its beginning."
            )
    return kept


def superseded(files: Iterable[ArchiveFile]) -> list[ArchiveFile]:
    """The files whose rows are in a larger one as well; raises as `current` does."""
    known = set(files)
    return sorted(known - set(current(known)))


class Coverage:
    """Which offsets of which partition and day are in files; one day of one topic each."""

    def __init__(self, files: Iterable[ArchiveFile] = ()) -> None:
        self._ranges: defaultdict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
        for file in files:
            self.add(file)

    def add(self, file: ArchiveFile) -> None:
        """Note a file that is there."""
        ranges = self._ranges[file.generation, file.partition]
        if not ranges or file.first > ranges[-1][0]:
            ranges.append((file.first, file.last))
        else:
            insort(ranges, (file.first, file.last))

    def has(self, generation: str, partition: int, offset: int) -> bool:
        """Whether a record of this day is in a file."""
        ranges = self._ranges.get((generation, partition))
        if not ranges:
            return False
        # A larger range may start before a smaller one that it supersedes.
        return any(offset <= last for _, last in ranges[: bisect_right(ranges, (offset, 1 << 63))])

    def newest(self, generation: str, partition: int) -> int:
        """The highest offset in any file, -1 without one."""
        return max((last for _, last in self._ranges.get((generation, partition), ())), default=-1)
