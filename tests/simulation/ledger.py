"""A database for simulations of counts: transactions that overlap, a log in the order of commits, snapshots.

As in Postgres, a transaction is in the log before queries see it, and the order in which transactions become visible
is not the order in which they were logged.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from fanline.changes import Op, RowChange
from readmodels import counts, flags
from readmodels.effects import Query
from tests.simulation.world import PARTITIONS, LogRecord

Row = dict[str, Any]
Key = tuple[str, Any]

FIRST_TRANSACTION = (1 << 32) - 40
"""Numbers of transactions go round their circle of 2^32 in the middle of a history."""
DAY_MS = 86_400_000


def partition_of(key: Key) -> int:
    return sum(map(ord, str(key))) % PARTITIONS


@dataclass
class Transaction:
    """What somebody is about to do: changes with their places in the log, and the rows that nobody else may touch."""

    number: int
    changes: list[tuple[int, str, Op, Key, Row]] = field(default_factory=list)
    locks: set[Key] = field(default_factory=set)


@dataclass
class Ledger:
    """Rows as queries see them, and a log a topic."""

    people: list[UUID]
    rows: dict[Key, Row] = field(default_factory=dict)
    log: dict[tuple[str, int], list[LogRecord]] = field(default_factory=lambda: defaultdict(list))
    open: list[Transaction] = field(default_factory=list)
    """Neither in the log nor visible."""
    logged: list[Transaction] = field(default_factory=list)
    """In the log, and not visible yet."""
    next_number: int = FIRST_TRANSACTION
    completed: int = FIRST_TRANSACTION - 1
    """The greatest number of a transaction that has become visible."""
    end: int = 1
    last_commit: int = 0
    next_post: int = 1 << 40

    def begin(self) -> Transaction:
        transaction = Transaction(self.next_number)
        self.next_number += 1
        while self.next_number & 0xFFFFFFFF < 3:  # Postgres skips the numbers that mean something else.
            self.next_number += 1
        self.open.append(transaction)
        return transaction

    def write(self, transaction: Transaction, op: Op, keys: Iterable[Key], rows: Iterable[Row]) -> None:
        """Rows of one statement: of a COPY they share a place in the log, otherwise each has its own."""
        self.end += 8
        for key, row in zip(keys, rows, strict=True):
            transaction.changes.append((self.end, key[0], op, key, row))
            transaction.locks.add(key)
            if op != "c" or random.Random(self.end).random() < 0.5:
                self.end += 8

    def commit(self, transaction: Transaction) -> None:
        """Into the log; not visible yet."""
        self.open.remove(transaction)
        for place, table, op, key, row in transaction.changes:
            position = (self.last_commit, place)
            change = RowChange(table, op, row, position, 0, transaction.number & 0xFFFFFFFF)
            self.append(LogRecord(position, partition_of(key), op, change))
        self.end += 8
        self.last_commit = self.end
        self.logged.append(transaction)

    def show(self, transaction: Transaction) -> None:
        """Queries see it from now on."""
        self.logged.remove(transaction)
        self.completed = max(self.completed, transaction.number)
        self.write_rows(transaction)

    def write_rows(self, transaction: Transaction) -> None:
        for _, _, op, key, row in transaction.changes:
            if op == "d":
                self.rows.pop(key, None)
            else:
                self.rows[key] = row

    def read_again(self, key: Key) -> None:
        """A snapshot writes a row into the log."""
        change = RowChange(key[0], "r", self.rows[key], (0, 0), 0)
        self.append(LogRecord((0, 0), partition_of(key), "r", change))

    def append(self, record: LogRecord) -> None:
        self.log[record.row.table, record.partition].append(record)

    def is_free(self, keys: Iterable[Key]) -> bool:
        wanted = set(keys)
        return not any(wanted & transaction.locks for transaction in (*self.open, *self.logged))

    def all_visible(self, transactions: set[int]) -> bool:
        return not any(t.number & 0xFFFFFFFF in transactions for t in self.logged)

    def snapshot(self) -> Row:
        running = [t.number for t in (*self.open, *self.logged) if t.number <= self.completed]
        text = f"{min(running, default=self.completed + 1)}:{self.completed + 1}:{','.join(map(str, running))}"
        return {"snapshot": text, "log_end": self.end}

    def table(self, name: str) -> list[Row]:
        return [row for key, row in self.rows.items() if key[0] == name]

    def answer(self, query: Query) -> list[Row]:
        """The rows of the queries that load values."""
        ids = query.parameters["ids"]
        match query.sql:
            case counts.STATUS_COUNTS_SQL:
                return [self._status(post) | self.snapshot() for post in ids if ("posts", post) in self.rows]
            case counts.ACCOUNT_COUNTS_SQL:
                return [self._account(person) | self.snapshot() for person in ids]
            case flags.FLAGS_BY_ID:
                return [self._flags(person) | self.snapshot() for person in ids]
        raise AssertionError(f"the ledger does not know this query: {query.sql}")

    def _status(self, post: int) -> Row:
        posts = self.table("posts")
        return {
            "id": post,
            "replies_count": sum(p["in_reply_to_id"] == post and p["visibility"] == "public" for p in posts),
            "reblogs_count": sum(p["repost_of_id"] == post for p in posts),
            "favourites_count": sum(row["post_id"] == post for row in self.table("likes")),
            "bookmarks_count": sum(row["post_id"] == post for row in self.table("bookmarks")),
        }

    def _account(self, person: UUID) -> Row:
        own = [p for p in self.table("posts") if p["author_id"] == str(person) and p["visibility"] != "direct"]
        newest = max(own, key=lambda post: post["id"], default=None)
        follows = self.table("follows")
        return {
            "id": person,
            "followers_count": sum(row["followee_id"] == str(person) for row in follows),
            "following_count": sum(row["follower_id"] == str(person) for row in follows),
            "statuses_count": len(own),
            "newest_id": newest["id"] if newest else None,
            "last_status_at": newest["moment"] if newest else None,
        }

    def _flags(self, person: UUID) -> Row:
        def ids(table: str, column: str = "post_id", whose: str = "user_id") -> list[int]:
            return sorted((r[column] for r in self.table(table) if r[whose] == str(person) and r[column]), reverse=True)

        votes = [
            flags.vote(r["poll_id"], r["position"]) for r in self.table("poll_votes") if r["voter_id"] == str(person)
        ]
        return {
            "id": person,
            "reblogged": ids("posts", "repost_of_id", "author_id"),
            "favourited": ids("likes"),
            "bookmarked": ids("bookmarks"),
            "pinned": ids("pins"),
            "muted": ids("conversation_mutes"),
            "votes": sorted(votes, reverse=True),
        }
