"""A row change that was sent back is given as what the database has now."""

from typing import Any

from connectors.decode import Change, ChangeDecoder
from connectors.messages import Message, Replayed
from fanline.changes import RowChange
from tests.unit.letters import Letters

LIKE = {"user_id": "00000000-0000-4000-8000-000000000001", "post_id": 5, "created_at": "2026-01-01T00:00:00Z"}


def test_it_is_looked_up_when_the_records_before_it_are_visible() -> None:
    happened: list[Any] = []

    def decode(value: bytes) -> dict[str, Any]:
        about = {"__op": "c", "__deleted": None, "__source_sequence": '["1","2"]', "__source_ts_ms": 3}
        return LIKE | about | {"__source_txId": int(value)}

    def present(change: RowChange) -> RowChange:
        happened.append("looked up")
        return RowChange("likes", "d", change.row, (0, 0), 0)

    letters: Any = Letters()
    decoder = ChangeDecoder(decode, letters, None, lambda those: happened.append(set(those)), present)
    records = [Message("cdc.likes", 0, number, b"key", b"%d" % number, (), 0) for number in (7, 8)]
    made: list[Change] = decoder([records[0], Replayed(*records[1])])
    assert [change.change.op for change in made] == ["c", "d"]
    assert happened == [{7}, "looked up"]
