"""What a search read model asks an index to hold: one document or its absence, in a version. Knows no search engine."""

from typing import Any, NamedTuple


class IndexWrite(NamedTuple):
    """The document that an index should have under an id, or None for none at all.

    `alias` names the index for writers; there may be several behind it while a new one is built. A write counts unless
    a later `version` was there before, so writes may come late, twice and in any order. `cause` is the Kafka record
    that led to it, for the dead letters; None when it was no record.
    """

    alias: str
    id: str
    version: int
    document: bytes | None
    cause: Any = None
