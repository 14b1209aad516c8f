"""Runs of row changes: what engagement makes of a run is what it makes of its changes one by one, whatever is in it."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.records import FOLLOWS_SCHEMA, LIKES_SCHEMA, as_change, value_schema
from connectors.decode import ChangeDecoder
from connectors.decode_runs import RUN_RECORDS, RunDecoder
from connectors.messages import Message, Progress
from connectors.record_runs import Records, in_runs
from dataflows.engagement import route, route_run
from fanline.avro import AvroDecoder, encode, parse
from fanline.resp import unpack
from readmodels import incremental
from readmodels.applying import Batch, RoutedRun
from readmodels.flags import FLAGS
from tests.unit.letters import Letters

VOTES_SCHEMA = value_schema("poll_votes", poll_id="long", voter_id="string", position="int", created_at="string")
SCHEMAS = {"likes": LIKES_SCHEMA, "bookmarks": LIKES_SCHEMA, "follows": FOLLOWS_SCHEMA, "poll_votes": VOTES_SCHEMA}
PARSED = {table: parse(text) for table, text in SCHEMAS.items()}
PEOPLE = [str(UUID(int=number << 64 | number, version=4)) for number in range(1, 9)]
TIME = "2026-11-30T12:00:00.000000Z"


def row(table: str, person: str = PEOPLE[0], other: int = 0) -> dict[str, Any]:
    if table == "follows":
        more = {"show_reblogs": True, "notify": False}
        return {"follower_id": person, "followee_id": PEOPLE[other % 8], "created_at": TIME, **more}
    if table == "poll_votes":
        return {"poll_id": other, "voter_id": person, "position": other % 4, "created_at": TIME}
    return {"user_id": person, "post_id": other, "created_at": TIME}


def change(table: str = "likes", number: int = 1, of: dict[str, Any] | None = None, **own: Any) -> bytes:
    made = as_change(of or row(table, PEOPLE[number % 8], number), (1000, 1000 + number), number % 3 or None)
    return encode(1, PARSED[table], made | {f"__{name}": value for name, value in own.items()})


def records(values: list[bytes | None], table: str = "likes", partition: int = 2) -> list[Message]:
    return [Message(f"cdc.{table}", partition, at, b"key", value, (), 5) for at, value in enumerate(values)]


def decoded(messages: list[Message], *, in_run: bool) -> tuple[list[list[bytes]], set[int], list[Any], int, list[Any]]:
    """The commands that come of records, transactions to wait for, letters, how many were accepted, and the items."""
    letters: Any = Letters()
    waited: set[int] = set()
    decoder = AvroDecoder(lambda _: SCHEMAS[messages[0].topic.removeprefix("cdc.")])
    items: list[Any] = [*messages, Progress(messages[0].topic, 2, len(messages))]
    if in_run:
        items = list(in_runs(items))
        step: ChangeDecoder = RunDecoder(decoder, letters, route, route_run, waited.update)
    else:
        step = ChangeDecoder(decoder.decode, letters, route, waited.update)
    made = step(items)
    assert made[-1] == items[-1]
    batch = Batch(made[:-1])
    batch._applier.token = b"same one"
    commands = [sorted(zip(writes.keys, writes.data, strict=True)) for writes in batch.writes()]
    return commands, waited, letters.found, letters.understood, made[:-1]  # type: ignore[return-value]


def same(messages: list[Message]) -> list[Any]:
    """The items of a run, after holding it to what its records come to one by one."""
    *found, items = decoded(messages, in_run=True)
    *expected, _ = decoded(messages, in_run=False)
    assert found == expected
    return items


@settings(max_examples=60, deadline=None)
@given(
    table=st.sampled_from(["likes", "bookmarks", "follows"]),
    drawn=st.lists(
        st.tuples(
            st.integers(0, 7), st.integers(0, (1 << 63) - 1), st.booleans(),
            st.integers(0, (1 << 62)), st.integers(1, (1 << 59)), st.none() | st.integers(1, (1 << 32) - 1),
        ),
        min_size=RUN_RECORDS, max_size=90,
    ),
)  # fmt: skip
def test_a_run_comes_to_what_its_changes_come_to_one_by_one(table, drawn) -> None:
    values = []
    for person, other, gone, commit, own, transaction in drawn:
        place = (min(commit, 10**18 - 1), own)
        made = as_change(row(table, PEOPLE[person], other), place, transaction)
        made |= {"__op": "d", "__deleted": "true"} if gone else {}
        values.append(encode(1, PARSED[table], made))
    [item] = same(records(values, table))
    assert isinstance(item, RoutedRun)


ODD: dict[str, bytes | None] = {
    "a person who is no uuid": change(of=row("likes", "no uuid")),
    "a letter that is no digit": change(of=row("likes", PEOPLE[0][:-1] + "x")),
    "a space among the digits": change(of=row("likes", PEOPLE[0][:-2] + " a")),
    "a letter that is not ASCII": change(of=row("likes", PEOPLE[0][:-1] + "é")),
    "a negative post": change(of=row("likes", other=-1)),
    "an update": change(op="u"),
    "an unknown operation": change(op="x"),
    "no operation": change(op=None),
    "a row of a snapshot": change(op="r"),
    "a delete that is not called deleted": change(op="d", deleted="false"),
    "the position of a snapshot": change(source_sequence='["0","0"]'),
    "the first commit of a connector": change(source_sequence='[null,"1005"]'),
    "a position as numbers": change(source_sequence="[1000, 1005]"),
    "a position that is none": change(source_sequence='["1000","many"]'),
    "a negative position": change(source_sequence='["-1000","-1005"]'),
    "no position": change(source_sequence=None),
    "no time": change(source_ts_ms=None),
    "a transaction past 32 bits": change(source_txId=1 << 32),
    "a negative transaction": change(source_txId=-1),
    "a byte too few": change()[:-1],
    "a byte too many": change() + b"\0",
    "another schema": b"\0\0\0\0\2" + change()[5:],
    "a message of a changefeed": b'{"after": {"user_id": 1}, "updated": "1.0"}',
    "nothing": b"",
    "a tombstone": None,
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("at", [0, 20, 40])
def test_one_odd_record_in_a_run_is_treated_as_it_is_by_itself(odd: str, at: int) -> None:
    values: list[bytes | None] = [change(number=number) for number in range(1, 41)]
    values.insert(at, ODD[odd])
    same(records(values))


def test_a_table_without_a_rule_for_runs_is_routed_change_by_change() -> None:
    items = same(records([change("poll_votes", number) for number in range(1, 41)], "poll_votes"))
    assert len(items) == 40


def test_a_run_of_a_few_is_routed_change_by_change() -> None:
    assert len(same(records([change(number=number) for number in range(1, 4)]))) == 3


def test_changes_of_one_value_from_several_partitions_are_a_group_a_partition_in_their_order() -> None:
    runs = [
        *in_runs(records([change(number=8 * number) for number in range(1, 41)], partition=2)),
        *in_runs(records([change(number=8 * number) for number in range(41, 81)], partition=3)),
        *in_runs(records([change(number=8 * number) for number in range(81, 84)], partition=2)),
    ]
    assert all(isinstance(run, Records) for run in runs)
    decoder = AvroDecoder(lambda _: LIKES_SCHEMA)
    batch = Batch(RunDecoder(decoder, Letters(), route, route_run)(runs))  # type: ignore[arg-type]
    [[of_person]] = [kind.data for kind in batch.writes() if kind.kind is FLAGS]
    groups = unpack(of_person)[0][-2:]
    assert [group[:3] for group in groups] == [incremental.place(2, 2), incremental.place(2, 3)]
    owns = [[int.from_bytes(group[at + 8 : at + 16]) - 1000 for at in range(3, len(group), 34)] for group in groups]
    assert owns == [[8 * n for n in (*range(1, 41), *range(81, 84))], [8 * n for n in range(41, 81)]]
