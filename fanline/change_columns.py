"""Row changes as columns: what `fanline/changes.py` makes of one record, for a run of records at once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Longs = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Debezium's `source.sequence` as it is written once a connector has seen a commit; 18 digits fit 64 bits.
_SEQUENCE = r'^\["(?P<commit>[0-9]{1,18})","(?P<own>[0-9]{1,18})"\]$'
_LAST_TRANSACTION = 0xFFFFFFFF
_NEEDED = frozenset(["__op", "__deleted", "__source_sequence", "__source_ts_ms", "__source_txId"])


@dataclass(frozen=True, slots=True)
class RowChanges:
    """Rows of one table that have come or gone, in the order of their partition; see `changes.RowChange`."""

    table: str
    rows: pa.RecordBatch
    """The captured columns. Of a row that is gone only those mean something that `changes.deleted_row` keeps."""
    adds: Bools
    """Whether the row has come; otherwise it is gone."""
    positions: tuple[Longs, Longs]
    """The commit before, and the row's own."""
    transactions: Longs
    """0 for none."""

    def __len__(self) -> int:
        return len(self.adds)

    def texts(self, column: str) -> list[str] | None:
        """The values of a column; None if it is not there, is no text, or lacks a value."""
        found = self._column(column, pa.string())
        return None if found is None else found.to_pylist()

    def numbers(self, column: str) -> Longs | None:
        """The values of a column of 64-bit numbers; None if it is not there, is none, or lacks a value."""
        found = self._column(column, pa.int64())
        return None if found is None else found.to_numpy()

    def _column(self, name: str, kind: pa.DataType) -> pa.Array | None:
        at = self.rows.schema.get_field_index(name)
        if at < 0:
            return None
        found = self.rows.column(at)
        return found if found.type == kind and not found.null_count else None


def row_changes(table: str, batch: pa.RecordBatch) -> RowChanges | None:
    """The changes in decoded records; None unless each is a row from Postgres' log that has come or gone.

    What is None here (updates, snapshots, other databases, faults) is for `changes.row_change` to judge one by one.
    """
    if not _NEEDED.issubset(batch.schema.names) or batch.column("__source_ts_ms").null_count:
        return None
    gone = pc.equal(batch.column("__op"), "d")
    come = pc.and_(
        pc.equal(batch.column("__op"), "c"), pc.not_equal(pc.coalesce(batch.column("__deleted"), ""), "true")
    )
    if not pc.all(pc.coalesce(pc.or_(gone, come), False)).as_py():
        return None
    places = pc.extract_regex(batch.column("__source_sequence"), _SEQUENCE)
    if places.null_count:
        return None
    commits, owns = (place.cast(pa.int64()).to_numpy() for place in places.flatten())
    transactions = pc.coalesce(batch.column("__source_txId"), 0).to_numpy()
    # A zero stands for a row that a snapshot has read, and a transaction's number has 32 bits.
    if not owns.all() or transactions.min() < 0 or transactions.max() > _LAST_TRANSACTION:
        return None
    return RowChanges(table, batch, come.to_numpy(zero_copy_only=False), (commits, owns), transactions)
