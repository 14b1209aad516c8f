"""Who used a subject, a hashtag or a post, in Redis: what was written, and what it comes to for those who read.

Time goes in blocks, days for hashtags and quarters of a day for posts, numbered from the Unix epoch, UTC. Layout, with
`<kind>` tag or post and `<subject>` a name or an id:

    <kind>_use:{<subject>}:<block>   sorted set: account (16) and the post (8) that a use was made by: one with the
                                     hashtag, a repost, an answer. All scores are 0: they lie in the order of accounts
    post_like:{<subject>}            sorted set: account, scored by the ms of its favourite

What follows from these is kept beside them by the function that writes them (readmodels/functions/trends.lua):

    <kind>_by:{<subject>}:<block>    set: the accounts that used it in the block
    <kind>_people:{<subject>}        sorted set: account, scored by the ms of its newest use

So how many accounts used it in a block, or since a moment, is the size of a set or of a range, and costs the same
however many uses there are. What is written is a member of a set and what follows is made of what is there, so a
repetition changes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fanline.ids import created_ms, pack_id, unpack_id
from readmodels.effects import Command, Effects, Redis, call, command

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
_DAY_SECONDS = 86_400

ACCOUNT_BYTES = 16
AT_ONCE = 500
"""Uses that Redis takes in before it answers somebody else."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Hashtags or posts, and how their uses are kept."""

    name: bytes
    block_ms: int
    """How long a block is, and the window in which uses count as present."""
    past: int
    """Whole blocks before the window, its past."""
    seconds: int
    """After how long a key that nobody writes is forgotten."""

    @property
    def kept_ms(self) -> int:
        """Uses older than this are in no window and in no past."""
        return (self.past + 2) * self.block_ms

    def past_blocks(self, now_ms: int) -> range:
        """The whole blocks before the window."""
        first = (now_ms - self.block_ms) // self.block_ms
        return range(first - self.past, first)

    def kept_blocks(self, now_ms: int) -> range:
        """The blocks that there may be something in, and one more: clocks differ."""
        last = now_ms // self.block_ms + 1
        return range((now_ms - self.kept_ms) // self.block_ms, last + 1)

    def keys(self, subject: bytes) -> list[bytes]:
        """What functions work on: the first two are of blocks."""
        return [b"%s_%s:{%s}" % (self.name, what, subject) for what in (b"use", b"by", b"people", b"like")]

    def use_key(self, subject: bytes, block: int) -> bytes:
        """The key of a block's uses by posts."""
        return b"%s_use:{%s}:%d" % (self.name, subject, block)

    def by_key(self, subject: bytes, block: int) -> bytes:
        """The key of a block's accounts."""
        return b"%s_by:{%s}:%d" % (self.name, subject, block)

    def people_key(self, subject: bytes) -> bytes:
        """The key of all accounts by their newest use."""
        return b"%s_people:{%s}" % (self.name, subject)

    def like_key(self, subject: bytes) -> bytes:
        """The key of favourites."""
        return b"%s_like:{%s}" % (self.name, subject)


TAG = Kind(b"tag", DAY_MS, 7, 10 * _DAY_SECONDS)
POST = Kind(b"post", 6 * HOUR_MS, 3, 2 * _DAY_SECONDS)


def use(account: bytes, through: int = 0) -> bytes:
    """A use: an account and the post that it was made by, none for a favourite."""
    return account + pack_id(through) if through else account


def made_by(member: bytes) -> int:
    """The post in a use by a post."""
    return unpack_id(member[ACCOUNT_BYTES:])


def count(kind: Kind, subject: bytes, uses: Mapping[bytes, int | None], now_ms: int) -> Iterable[Command]:
    """Make uses so: at their ms, or at none when they were taken back."""
    blocks, keys = kind.kept_blocks(now_ms), kind.keys(subject)
    ordered = list(uses.items())
    for start in range(0, len(ordered), AT_ONCE):
        parts = [
            part
            for member, made_ms in ordered[start : start + AT_ONCE]
            for part in (member[:ACCOUNT_BYTES], member[ACCOUNT_BYTES:], b"" if made_ms is None else made_ms)
        ]
        yield call(b"trend_count", keys, kind.block_ms, blocks[0], blocks[-1], kind.seconds, *parts)


def forget(kind: Kind, subject: bytes, now_ms: int) -> Command:
    """Remove what is known of a subject."""
    blocks = kind.kept_blocks(now_ms)
    return call(b"trend_forget", kind.keys(subject), blocks[0], blocks[-1])


def people(kind: Kind, subject: bytes, since_ms: int, most: int) -> Command:
    """How many accounts used a subject since a moment, and all of them or, of more than `most`, every n-th."""
    return call(b"trend_people", [kind.people_key(subject)], since_ms, most, read_only=True)


def sample(accounts: Sequence[bytes], most: int) -> Sequence[bytes]:
    """What `people` returns of accounts, given those in its order: by newest use and account, descending."""
    size = len(accounts)
    return accounts if size <= most else [accounts[number * size // most] for number in range(most)]


def whole_blocks(kind: Kind, now_ms: int) -> range:
    """The newest blocks of which nothing has been forgotten yet."""
    last = now_ms // kind.block_ms
    return range(last - kind.past, last + 1)


def contents(kind: Kind, subjects: Sequence[bytes], blocks: range) -> Effects[list[list[bytes]]]:
    """What is kept of each subject since the first of the blocks, in the form of `expected`."""
    since = blocks[0] * kind.block_ms
    reads = []
    for subject in subjects:
        reads.append(command(kind.like_key(subject), b"ZRANGEBYSCORE", since, b"+inf", b"WITHSCORES"))
        reads.append(command(kind.people_key(subject), b"ZRANGEBYSCORE", since, b"+inf", b"WITHSCORES"))
        reads += [command(kind.use_key(subject, block), b"ZRANGE", 0, -1) for block in blocks]
        reads += [command(kind.by_key(subject, block), b"SMEMBERS") for block in blocks]
    replies = iter((yield Redis(reads)) if reads else ())
    found = []
    for _ in subjects:
        told = []
        for what in (b"use", b"newest"):
            pairs = next(replies)
            told += [_told(what, bytes(account), int(ms)) for account, ms in zip(pairs[::2], pairs[1::2], strict=True)]
        for _ in blocks:
            uses = (bytes(member) for member in next(replies))
            told += [_told(b"use", member, created_ms(made_by(member))) for member in uses]
        told += [_told(b"by", bytes(account), block) for block in blocks for account in next(replies)]
        found.append(told)
    return found


def expected(kind: Kind, uses: Iterable[tuple[bytes, int]]) -> set[bytes]:
    """What should be kept of a subject, given its uses with their ms: the oracle."""
    told: set[bytes] = set()
    newest: dict[bytes, int] = {}
    for member, ms in uses:
        account = member[:ACCOUNT_BYTES]
        newest[account] = max(newest.get(account, 0), ms)
        told |= {_told(b"use", member, ms), _told(b"by", account, ms // kind.block_ms)}
    return told | {_told(b"newest", account, ms) for account, ms in newest.items()}


def _told(what: bytes, member: bytes, number: int) -> bytes:
    return b"%s %s %d" % (what, member, number)
