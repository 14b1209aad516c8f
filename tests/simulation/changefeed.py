"""A ledger whose log is that of CockroachDB's changefeeds.

A commit is visible at once and comes into the log later. Its rows share its time; each row's changes come in their
order, those of different rows in any; and a changefeed that starts again repeats what it has sent.
Source: CockroachDB, "Changefeed Messages", ordering and delivery guarantees.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from fanline.changes import RowChange
from tests.simulation.ledger import Ledger, Row, Transaction, partition_of
from tests.simulation.world import FIRST_NANOSECOND, LogRecord


@dataclass
class ChangefeedLedger(Ledger):
    """`show` sends a transaction's changes: its rows stay locked until then, so that each row's are in their order."""

    dice: random.Random = field(default_factory=random.Random)

    def commit(self, transaction: Transaction) -> None:
        self.open.remove(transaction)
        self.end += 8
        self.last_commit = self.end
        transaction.changes = [(self.end, *change[1:]) for change in transaction.changes]
        self.write_rows(transaction)
        self.logged.append(transaction)

    def show(self, transaction: Transaction) -> None:
        self.logged.remove(transaction)
        for time, table, op, key, row in self.dice.sample(transaction.changes, len(transaction.changes)):
            position = (FIRST_NANOSECOND + time, 0)
            self.append(LogRecord(position, partition_of(key), op, RowChange(table, op, row, position, 0)))
        if self.log and self.dice.random() < 0.1:
            again = self.dice.choice(list(self.log.values()))
            again += again[-self.dice.randint(1, 6) :]

    def snapshot(self) -> Row:
        return {"hybrid_time": f"{FIRST_NANOSECOND + self.end}.{0:010d}"}
