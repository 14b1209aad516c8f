"""What every read model keeps of some people and posts, in a form in which equal contents are equal.

A flow that is added gets a line here for each place that it writes to: prefixes of Redis keys in `IN_REDIS`, anything
else in `content`. What is left out is left out by name, here, with its reason:

- tokens of documents and buckets, positions and snapshots of counted values, versions of search documents: by them
  flows know what is old, and they grow with each write;
- documents and values that say that nothing is there (they expire, and their absence says the same), reservations,
  empty chunks and buckets of zeros;
- entries of lists whose posts are gone, or whose authors the reader does not follow any more: readers drop them, and a
  replay may bring them back (readmodels/timelines.py);
  order and repetition of entries, which readers settle as well; how much more than `COMPARED` entries a list has;
- whether series of accounts, which readers build, are there: what is missing is built here as well;
- a search document's popularity, which only ranks and is as old as the document's last change;
- times to live, and the 16 bytes in a HyperLogLog in which Redis caches its count.
"""

import hashlib
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from audit.stores import Stores
from connectors.flows import FLOWS
from fanline.ids import pack_id
from fanline.settings import Settings
from readmodels import aggregates, documents, incremental, search
from readmodels.cards import ACCOUNT_CARD, STATUS_CARD
from readmodels.counts import ACCOUNT_COUNTS, STATUS_COUNTS
from readmodels.effects import Command, Query, command
from readmodels.entries import newest_first
from readmodels.flags import FLAGS
from readmodels.followers import split_ids
from readmodels.poll_documents import POLL
from readmodels.relations import VIEWER
from schemas import contracts
from sinks.opensearch_client import OpenSearchClient
from sinks.parquet_query import open_archive, query
from sinks.parquet_store import open_store

# What a process was sending when it died is said to be unknown some minutes later.
STATE = "CASE d.state WHEN 'sending' THEN 'unknown' ELSE d.state END"

Content = dict[Any, Any]
"""What is kept, by where it is kept."""

SHARED = {b"instance", b"all"}
NOT_CONTENT = {
    b"generations": "which generation of a read model serves is an operator's choice",
    b"document": "the counter of tokens",
    b"deliveries": "measured: what is delivered again is counted again",
    b"own": "the API notes here when somebody wrote last",
    b"session": "the API keeps here who is signed in",
    b"sessions-revoked": "the API keeps here whose sessions have ended",
    b"rate": "the API counts requests here",
    b"trends": "a ranking is one of its moment, made anew every few seconds",
    b"ready": "a mark that a node has lost nothing, with a random number",
    b"trend_ready": "the same for trends",
}
COMPARED = 400
"""Entries of a list: half of FANLINE_TIMELINE_CAP, above which lists are cut now and then."""
_KEY = re.compile(rb"(?P<prefix>\w+):\d*(?:\{(?P<id>.*)\})?(?P<rest>.*)", re.S)
_HYPERLOGLOG = b"HYLL"


@dataclass
class Cast:
    """Whom and what the content is about."""

    people: set[UUID] = field(default_factory=set)
    posts: set[int] = field(default_factory=set)
    """Also those that were deleted."""

    def take_in(self, stores: Stores) -> None:
        """Everything that these people have written by now."""
        found = stores.rows(Query("SELECT id FROM posts WHERE author_id = ANY(%(ids)s)", {"ids": list(self.people)}))
        self.posts |= {row["id"] for row in found}

    @property
    def names(self) -> set[bytes]:
        """Their ids as keys have them; a poll has its post's id or one of its own."""
        return {str(each).encode() for each in (*self.people, *self.posts)}


Shape = Callable[[Any, "Look"], Any]
"""What a value says, given the value; None: nothing."""


@dataclass
class Look:
    """What shapes need to know."""

    people: set[bytes]
    written: dict[bytes, set[int]]
    """Posts that exist, by author."""
    follows: set[tuple[bytes, bytes]]
    """Pairs of follower and followee; everybody follows themselves."""


def whole(value: Any, _: Look) -> Any:
    """The value as it is."""
    return value or None


def document(value: bytes, _: Look) -> Any:
    """A document without its token."""
    return documents.body(value) or None


def counted(value: bytes, _: Look) -> Any:
    """A counted value without what it has seen."""
    return incremental.body(value) or None


def entries(value: list[bytes], look: Look, reader: bytes = b"") -> Any:
    """What a list's header says but for its floor, and the newest posts in it, of all or of whom a reader follows."""
    headers = [(item[:1], item[9:]) for item in value if len(item) not in (8, 16)]
    shown = {author for author, posts in look.written.items() if not reader or (reader, author) in look.follows}
    wanted = set().union(*(look.written[author] for author in shown))
    there = [(entry.id, entry.original) for entry in newest_first(value) if entry.id in wanted]
    return headers, there[:COMPARED]


def timeline(value: tuple[bytes, list[bytes]], look: Look) -> Any:
    """A reader and their list."""
    return entries(value[1], look, value[0])


def followers(value: Any, _: Look) -> Any:
    """The facts about an author's followers, or a chunk of these."""
    return value if isinstance(value, dict) else sorted(split_ids(value)) or None


def series(value: Any, _: Look) -> Any:
    """The counts of each bucket without its token, or a HyperLogLog."""
    if isinstance(value, bytes):
        return value[:8] + value[16:] if value.startswith(_HYPERLOGLOG) else value
    return {start: counts for start, counts in _untokened(value) if any(counts)} or None


def of_people(value: set[Any], look: Look) -> Any:
    """Members that begin with the id of one of the people."""
    return {each for each in value if (each[0] if isinstance(each, tuple) else each)[:16] in look.people} or None


IN_REDIS: dict[bytes, tuple[str, Shape]] = {
    b"f": ("followers", followers),
    b"celebrities": ("followers", of_people),
    b"t": ("timelines", timeline),
    b"r": ("timelines", entries),
    **{kind.prefix: ("cards", document) for kind in (ACCOUNT_CARD, STATUS_CARD, POLL, VIEWER)},
    **{kind.prefix: ("engagement", counted) for kind in (ACCOUNT_COUNTS, STATUS_COUNTS, FLAGS)},
    b"ts": ("aggregates", series),
    b"i": ("dispatcher", whole),
    **{
        f"{kind}_{what}".encode(): ("trends", of_people) for kind in ("tag", "post") for what in ("use", "by", "people")
    },
    b"post_like": ("trends", of_people),
    b"tag_post": ("trends", whole),
    b"trending": ("trends", whole),
}
"""The flow and the shape of what has a prefix."""
NAMED_OTHERWISE = {b"tag_use", b"tag_by", b"tag_people", b"trending"}
"""Prefixes whose keys tell of subjects that are neither people nor posts; their members are chosen instead."""


def content(settings: Settings, cast: Cast) -> dict[str, Content]:
    """What each flow has made of them, by flow."""
    found: dict[str, Content] = {flow: {} for flow in FLOWS}
    with opened(settings) as stores:
        _build_series(stores, cast)
        for flow, key, value in _in_redis(stores, cast):
            found[flow][key] = value
        told = "SELECT * FROM notifications WHERE user_id = ANY(%(people)s)"
        found["notifications"] = _rows(stores, told, cast, "id")
        for channel in ("push", "email"):
            sent = f"""SELECT d.notification_id, d.target, {STATE} AS state, d.created_at FROM notification_deliveries d
                       JOIN notifications n ON n.id = d.notification_id
                       WHERE n.user_id = ANY(%(people)s) AND d.channel = '{channel}'"""
            found[channel] = _rows(stores, sent, cast, "notification_id", "target")
    found["search"] = _in_search(settings, cast)
    found["archive"] = archived(settings)
    return found


def unknown_prefixes(settings: Settings) -> set[bytes]:
    """Prefixes of keys in Redis of which nothing is said here."""
    with opened(settings) as stores:
        prefixes = {_parts(key)[0] for keys in stores.scan(b"*") for key in keys}
    return prefixes - IN_REDIS.keys() - NOT_CONTENT.keys()


def archived(settings: Settings, *, every_record: bool = False) -> Content:
    """The archive's rows by topic and event, or by topic, partition and offset."""
    found: Content = {}
    database = open_archive(open_store(settings), every_record=every_record)
    try:
        for topic in contracts.load():
            for row in query(database, f'SELECT * FROM "{topic}"').to_pylist():
                place = (row["kafka_partition"], row["kafka_offset"])
                key = (topic, *place) if every_record else (topic, row["event_id"])
                # A record that is there twice must show.
                found.setdefault(key, []).append(tuple(map(repr, row.values())))
    finally:
        database.close()
    return found


def digest(content: Content) -> str:
    """A hash of what a flow keeps, for reports."""
    text = "\n".join(sorted(f"{key!r} {_sorted(value)!r}" for key, value in content.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changed(before: Content, after: Content) -> dict[Any, tuple[Any, Any]]:
    """What differs, by place: what was there and what is there now, None for nothing."""
    places = sorted(before.keys() | after.keys(), key=repr)
    return {place: (before.get(place), after.get(place)) for place in places if before.get(place) != after.get(place)}


def traces(content: Content, people: Collection[UUID], posts: Collection[int]) -> Content:
    """The part of a content that names some people or posts, in a key or a value."""
    texts = [str(each).encode() for each in (*people, *posts)]
    raw = [*(person.bytes for person in people), *(pack_id(post) for post in posts)]
    return {key: value for key, value in content.items() if any(map(_bytes((key, value)).__contains__, texts + raw))}


def left_by_design(settings: Settings, gone: UUID, posts: Collection[int]) -> set[bytes]:
    """Keys that may name an account that was deleted, and posts, although nobody can read them there.

    - cards of answers, and flags of who has muted a thread: rows themselves go on to say whom an answer was to, and
      which thread, as it outlives its first post;
    - what was used in an hour, from which rankings are chosen: ids that are looked up, for two days.
    """
    answer = "SELECT id FROM posts WHERE in_reply_to_account_id = %(id)s OR conversation_id = ANY(%(posts)s)"
    with opened(settings) as stores:
        answers = stores.rows(Query(answer, {"id": gone, "posts": list(posts)}))
        muted = "SELECT user_id AS id FROM conversation_mutes WHERE post_id = ANY(%(posts)s)"
        muters = stores.rows(Query(muted, {"posts": list(posts)}))
        used = {key for keys in stores.scan(b"trending:*") for key in keys}
    cards = {STATUS_CARD.key(row["id"]) for row in answers}
    return cards | used | {FLAGS.key(row["id"]) for row in muters}


@contextmanager
def opened(settings: Settings) -> Iterator[Stores]:
    """The stores, closed afterwards."""
    stores = Stores(settings)
    try:
        yield stores
    finally:
        stores.close()


def _build_series(stores: Stores, cast: Cast) -> None:
    settings, now = stores.settings, int(time.time())
    kept = aggregates.retention(
        settings.aggregates_minutes_days, settings.aggregates_hours_days, settings.aggregates_days_days
    )
    there = stores.rows(Query("SELECT id FROM users WHERE id = ANY(%(ids)s)", {"ids": list(cast.people)}))
    for person in (row["id"] for row in there):
        for resolution in aggregates.RESOLUTIONS.values():
            stores.drive(aggregates.read(person, resolution, now - 1, now, now, kept))


def _in_redis(stores: Stores, cast: Cast) -> Iterator[tuple[str, bytes, Any]]:
    look = _look(stores, cast)
    polls = {row["id"] for row in stores.rows(Query("SELECT id FROM polls", {}))}
    names = cast.names | {str(poll).encode() for poll in polls} | SHARED
    for keys in stores.scan(b"*"):
        wanted = [key for key in sorted(set(keys)) if _is_about(key, names)]
        for key, value in zip(wanted, _values(stores, wanted), strict=True):
            flow, shape = IN_REDIS[_parts(key)[0]]
            if shape is timeline:
                value = value and (UUID(_parts(key)[1].decode()).bytes, value)
            shaped = None if value is None else shape(value, look)
            if shaped is not None:
                yield flow, key, shaped


def _look(stores: Stores, cast: Cast) -> Look:
    written: dict[bytes, set[int]] = {}
    for row in stores.rows(Query("SELECT id, author_id FROM posts", {})):
        written.setdefault(row["author_id"].bytes, set()).add(row["id"])
    rows = stores.rows(Query("SELECT follower_id, followee_id FROM follows", {}))
    follows = {(row["follower_id"].bytes, row["followee_id"].bytes) for row in rows}
    people = {person.bytes for person in cast.people}
    return Look(people, written, follows | {(person, person) for person in people})


def _is_about(key: bytes, names: Collection[bytes]) -> bool:
    prefix, name = _parts(key)
    return prefix in IN_REDIS and (name in names or prefix in NAMED_OTHERWISE)


def _parts(key: bytes) -> tuple[bytes, bytes]:
    match = _KEY.fullmatch(key)
    return (match["prefix"], match["id"] or b"") if match else (key, b"")


def _values(stores: Stores, keys: list[bytes]) -> list[Any]:
    kinds = [bytes(kind) for kind in stores.redis([command(key, b"TYPE") for key in keys])]
    reads = [_read(key, kind) for key, kind in zip(keys, kinds, strict=True)]
    return [_as_python(kind, reply) for kind, reply in zip(kinds, stores.redis(reads), strict=True)]


def _read(key: bytes, kind: bytes) -> Command:
    words: dict[bytes, tuple[Any, ...]] = {
        b"hash": (b"HGETALL",), b"list": (b"LRANGE", 0, -1), b"set": (b"SMEMBERS",),
        b"zset": (b"ZRANGE", 0, -1, b"WITHSCORES"),
    }  # fmt: skip
    return command(key, *words.get(kind, (b"GET",)))


def _as_python(kind: bytes, reply: Any) -> Any:
    if kind == b"hash":
        return dict(zip(reply[::2], reply[1::2], strict=True))
    if kind == b"zset":
        return set(zip(reply[::2], reply[1::2], strict=True))
    return set(reply) if kind == b"set" else reply


def _untokened(value: dict[bytes, bytes]) -> Iterator[tuple[bytes, Any]]:
    for name, bucket in value.items():
        # Of the state its letter, of a bucket what comes after its token.
        yield name, bucket[:1] if name == b"state" else bucket[8:]


def _rows(stores: Stores, sql: str, cast: Cast, *keys: str) -> Content:
    rows = stores.rows(Query(sql, {"people": list(cast.people)}))
    return {tuple(row[key] for key in keys): row for row in rows}


def _in_search(settings: Settings, cast: Cast) -> Content:
    found: Content = {}
    client = OpenSearchClient(settings)
    try:
        for kind, ids in ((search.USERS, cast.people), (search.POSTS, cast.posts)):
            kept = client.documents(kind.read_alias(settings.search_prefix), sorted(map(str, ids)))
            for identifier, source in kept.items():
                found[kind.name, identifier] = {k: v for k, v in source.items() if k != kind.popularity_field}
    finally:
        client.close()
    return found


def _bytes(value: Any) -> bytes:
    """Everything in a value, one after the other."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        return b"\n".join(map(_bytes, value.items()))
    if isinstance(value, list | tuple | set):
        return b"\n".join(map(_bytes, value))
    return str(value).encode()


def _sorted(value: Any) -> Any:
    if isinstance(value, set):
        return sorted(value)
    if isinstance(value, dict):
        return sorted((repr(key), _sorted(each)) for key, each in value.items())
    return tuple(map(_sorted, value)) if isinstance(value, list | tuple) else value
