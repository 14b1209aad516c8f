"""What a reader is shown of a warm home timeline, against the oracle.

It is read as the API reads it, by the same rules over the same documents, but leaves nothing behind: a read over REST
would keep the timeline warm for somebody who never comes.
"""

import time
from collections.abc import Sequence
from uuid import UUID

from audit.checks import Check
from audit.compare import Difference, compare_sequences
from audit.stores import Stores
from readmodels import documents, timelines
from readmodels.cards import STATUS_CARD, status_card
from readmodels.documents import Reference
from readmodels.effects import Effects, Query, Redis
from readmodels.entries import Entry
from readmodels.home import Home, read_home
from readmodels.home_rules import Page, PostFacts, select_page

PAGE = 100
"""Entries that are compared: several pages of a client."""


def check_reads(public_url: str) -> Check:
    """The check of the newest entries that each viewer is shown; None for a timeline that is not warm."""

    def check(stores: Stores, viewers: Sequence[UUID]) -> dict[UUID, Difference | None]:
        return {viewer: stores.drive(compare_read(viewer, public_url)) for viewer in viewers}

    return check


def compare_read(viewer: UUID, public_url: str) -> Effects[Difference | None]:
    """The difference of one read from the oracle."""
    home = yield from read_home(viewer, public_url)
    if home is None:
        return None
    shown = yield from show(home, Page(PAGE), public_url)
    oracle = timelines.home_query(viewer, PAGE, since_id=home.floor)
    rows = yield Query(oracle.sql, oracle.parameters)
    return compare_sequences([row["id"] for row in rows], [entry.id for entry in shown])


def show(home: Home, page: Page, public_url: str) -> Effects[list[Entry]]:
    """The entries of a page, chosen as for a reader."""
    rules = select_page(home.entries, page, home.viewer, time.time_ns() // 1_000_000)
    facts: dict[int, PostFacts | None] | None = None
    while True:
        try:
            wanted = rules.send(facts) if facts is not None else next(rules)
        except StopIteration as stop:
            chosen: list[Entry] = stop.value
            return chosen
        facts = yield from load_facts(wanted, public_url)


def load_facts(posts: set[int], public_url: str) -> Effects[dict[int, PostFacts | None]]:
    """What the rules need to know of posts: from their cards, or from the database where Redis has none."""
    references: list[Reference] = [(STATUS_CARD, post) for post in posts]
    replies = yield Redis([documents.read(reference) for reference in references])
    bodies = dict(zip(references, map(documents.body, replies), strict=True))
    missing = [reference for reference, body in bodies.items() if body is None]
    if missing:
        bodies |= yield from documents.load(missing, public_url)
    facts: dict[int, PostFacts | None] = {}
    for (_, post), body in bodies.items():
        card = status_card(body) if body else None
        assert isinstance(post, int)
        facts[post] = None if card is None else PostFacts(card.author, card.in_reply_to_account)
    return facts
