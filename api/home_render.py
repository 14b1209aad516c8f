"""A page of statuses as JSON, joined from documents' bytes; nothing is encoded."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from api.documents import Found, Key, Status
from readmodels.cards import ACCOUNT_CARD, members
from readmodels.counts import ACCOUNT_COUNTS, STATUS_COUNTS
from readmodels.entries import Entry
from readmodels.flags import VOTES, entity_of
from readmodels.poll_documents import POLL
from readmodels.stored import Reference

Bits = Callable[[int, int], int]
"""The flags (readmodels/flags.py) of a post, given its id and that of its thread's first post."""

_NAMED = [b"," + members(entity_of(bits)) for bits in range(1 << VOTES)]
# With what follows them in a status that no filter matches.
_FLAGS = [named + b',"filtered":[],"account":{' for named in _NAMED]


def keys_for(post_ids: Iterable[int], found: Found) -> list[Key]:
    """The documents, besides the cards, that showing these statuses takes."""
    keys: list[Key] = []
    for post_id in post_ids:
        status: Status | None = found[post_id]
        if status is not None:
            keys += (status.counts_key, status.account_key, status.account_counts_key)
            if status.poll_key is not None:
                keys.append(status.poll_key)
    return keys


def references_for(post_ids: Iterable[int], found: Found) -> dict[Key, Reference]:
    """The same as references by key."""
    references: dict[Key, Reference] = {}
    for post_id in post_ids:
        status: Status | None = found[post_id]
        if status is not None:
            references[status.counts_key] = (STATUS_COUNTS, post_id)
            references[status.account_key] = (ACCOUNT_CARD, status.account)
            references[status.account_counts_key] = (ACCOUNT_COUNTS, status.account)
            if status.poll_key is not None:
                references[status.poll_key] = (POLL, status.poll)
    return references


def render(
    page: Sequence[Entry],
    found: Found,
    bits: Bits,
    polls: Mapping[int, bytes] | None = None,
    filtered: Mapping[int, bytes] | None = None,
) -> bytes:
    """The JSON array of the page; what has vanished since the page was chosen is left out.

    `found` has the cards and what `keys_for` names; `bits` gives the viewer's flags; `polls` has the JSON of the Poll
    entities by id, and `filtered` that of what filters match (api/home_filters.py) by post.
    """
    polls = polls or {}
    filtered = filtered or {}
    parts: list[bytes] = [b"["]
    for entry in page:
        status: Status | None = found[entry.id]
        if status is None or not _can_show(status, found):
            continue
        if entry.original == entry.id:
            _append(parts, status, found, bits(entry.id, status.conversation), polls, filtered.get(entry.id))
            parts.append(b'},"reblog":null},')
            continue
        original: Status | None = found[entry.original]
        if original is None or not _can_show(original, found):
            continue
        _append(parts, status, found, bits(entry.id, status.conversation), polls, filtered.get(entry.id))
        parts.append(b'},"reblog":')
        _append(
            parts, original, found, bits(entry.original, original.conversation), polls, filtered.get(entry.original)
        )
        parts.append(b'},"reblog":null}},')
    if len(parts) == 1:
        return b"[]"
    parts[-1] = parts[-1][:-1] + b"]"
    return b"".join(parts)


def _can_show(status: Status, found: Found) -> bool:
    return bool(found[status.counts_key] and found[status.account_key] and found[status.account_counts_key])


def _append(
    parts: list[bytes], status: Status, found: Found, flags: int, polls: Mapping[int, bytes], filtered: bytes | None
) -> None:
    parts += (
        b"{",
        status.members,
        b',"poll":%b,' % polls.get(status.poll, b"null") if status.poll else b",",
        found[status.counts_key],
        _FLAGS[flags] if filtered is None else b'%b,"filtered":%b,"account":{' % (_NAMED[flags], filtered),
        found[status.account_key],
        b",",
        found[status.account_counts_key],
    )
