"""The functions that add changes to values, on a real Valkey: what the simulation does not reach."""

import struct
from uuid import UUID

from readmodels import incremental
from readmodels.counts import LIKES, STATUS_COUNTS
from readmodels.effects import Command, call, command
from readmodels.flags import FAVOURITED, FLAGS, KEPT, REBLOGGED, SETS, sets
from tests.integration.redis_commands import Redis

VIEWER = UUID(int=5)
KEY = FLAGS.key(VIEWER)
PLACE = incremental.place(2, 0)
SNAPSHOT = {"snapshot": "100:100:", "log_end": 1_000}


def load(redis: Redis, key: bytes, value: bytes) -> None:
    assert redis(call(b"incremental_begin", [key], b"mytoken!")) == [b"mytoken!"]
    assert redis(call(b"incremental_fill", [key], b"mytoken!", value, 60)) == [1]


def one(position: tuple[int, int], transaction: int, post_id: int, adds: bool) -> bytes:
    return incremental.when(position, transaction) + post_id.to_bytes(8) + incremental.what(FAVOURITED, adds)


def apply(redis: Redis, *changes: bytes) -> int:
    [applied] = incremental.Applier().pack(FLAGS, [KEY], [PLACE + b"".join(changes)])
    return int(redis(Command(KEY, applied))[0])


def count(redis: Redis, applier: incremental.Applier, *changes: bytes) -> int:
    key = STATUS_COUNTS.key(7)
    [applied] = applier.pack(STATUS_COUNTS, [key], [PLACE + b"".join(changes)])
    return int(redis(Command(key, applied))[0])


def liked(redis: Redis) -> tuple[int, tuple[int, ...]]:
    payload = incremental.body(redis(command(KEY, b"GET"))[0])
    assert payload
    return sets(payload)[FAVOURITED]


def viewer(favourited: list[int]) -> bytes:
    return incremental.held(SNAPSHOT, FLAGS.encode({name: favourited if name == SETS[1] else [] for name in SETS}))


def test_a_set_stays_in_order_and_loses_its_oldest_when_it_has_grown_by_a_quarter(redis: Redis) -> None:
    load(redis, KEY, viewer([1 << 40]))
    newest = [(1 << 40) + (number << 16) for number in range(1, KEPT + KEPT // 4 + 1)]
    shuffled = newest[1::2] + newest[::2]
    apply(redis, *(one((2_000, 2_000 + number), 200, post_id, True) for number, post_id in enumerate(shuffled)))
    horizon, ids = liked(redis)
    assert ids == tuple(newest[-KEPT:])
    assert horizon == newest[-KEPT - 1]
    # What lies below the horizon is no longer known, so it is not noted either.
    apply(redis, one((9_000, 9_000), 201, horizon, True), one((9_000, 9_001), 201, newest[-1], False))
    assert liked(redis) == (horizon, tuple(newest[-KEPT:-1]))


def test_ids_that_differ_in_their_lower_half_alone_are_told_apart(redis: Redis) -> None:
    first = (7 << 32) - 1
    load(redis, KEY, viewer([]))
    apply(redis, *(one((2_000, 2_000 + n), 200, post_id, True) for n, post_id in enumerate((first + 1, first, 5))))
    assert liked(redis)[1] == (5, first, first + 1)


def test_a_change_behind_the_logs_end_is_new_however_far_the_circle_of_transactions_has_turned(redis: Redis) -> None:
    load(redis, KEY, viewer([]))
    old = 100 - 2_000_000_000 & 0xFFFFFFFF
    apply(redis, one((900, 900), old, 1, True), one((1_100, 950), old, 2, True), one((1_200, 1_150), old, 3, True))
    assert liked(redis)[1] == (2, 3)


def test_a_value_of_cockroachdb_has_seen_what_its_time_has_passed(redis: Redis) -> None:
    payload = FLAGS.encode({name: [] for name in SETS})
    base = b"C" + struct.pack(">QQ", 1_700_000_000_000_000_000, 3)
    load(redis, KEY, b"H" + struct.pack(">I", len(payload)) + payload + base)
    at = 1_700_000_000_000_000_000
    apply(redis, one((at, 3), 0, 1, True), one((at, 4), 0, 2, True), one((at + 1, 0), 0, 3, True))
    assert liked(redis)[1] == (2, 3)


def counted(redis: Redis) -> tuple[int, ...] | None:
    payload = incremental.body(redis(command(STATUS_COUNTS.key(7), b"GET"))[0])
    return None if payload is None else struct.unpack(">4I", payload)


def test_on_cockroachdb_a_like_that_another_rows_has_overtaken_is_not_taken_for_a_replay(redis: Redis) -> None:
    at = 1_700_000_000_000_000_000
    load(redis, STATUS_COUNTS.key(7), incremental.held({"hybrid_time": f"{at}.0000000000"}, bytes(16)))
    applier = incremental.Applier()

    def like(position: tuple[int, int], user: int) -> bytes:
        return incremental.when(position, None) + user.to_bytes(8) + incremental.what(LIKES, True)

    # Rows of one transaction share a time, and what the value was loaded with comes again.
    assert count(redis, applier, like((at + 5, 0), 1), like((at + 5, 0), 2), like((at + 5, 0), 1)) == 1
    assert count(redis, applier, like((at, 0), 3)) == 1
    likes = counted(redis)
    assert likes is not None
    assert likes[LIKES] == 2
    # Less than a double tells apart: a like of 3 behind one of 5, new or again, has the value loaded.
    assert count(redis, applier, like((at + 3, 0), 4)) == 0
    assert counted(redis) is None
    later = incremental.held({"hybrid_time": f"{at + 9}.0000000000"}, struct.pack(">4I", 0, 0, 3, 0))
    assert redis(call(b"incremental_fill", [STATUS_COUNTS.key(7)], applier.token, later, 60)) == [1]
    assert count(redis, applier, like((at + 3, 0), 4), like((at + 5, 0), 1), like((at + 9, 0), 2)) == 1
    assert counted(redis) == (0, 0, 3, 0)


def test_on_postgres_a_change_behind_the_last_one_is_a_replay(redis: Redis) -> None:
    load(redis, KEY, viewer([]))
    assert apply(redis, one((2_000, 2_005), 200, 5, True), one((2_000, 2_003), 200, 3, True)) == 1
    assert liked(redis)[1] == (5,)


def test_a_repost_that_is_taken_back_has_the_flags_loaded_again_but_not_by_a_replay(redis: Redis) -> None:
    load(redis, KEY, viewer([]))
    taken = incremental.when((2_000, 2_001), 200) + (9).to_bytes(8) + incremental.unsure(REBLOGGED)
    apply(redis, one((2_000, 2_002), 200, 5, True), taken)
    assert liked(redis)[1] == (5,)
    apply(redis, incremental.when((2_000, 2_003), 200) + (9).to_bytes(8) + incremental.unsure(REBLOGGED))
    assert redis(command(KEY, b"EXISTS")) == [0]


def test_a_value_of_an_earlier_layout_is_replaced(redis: Redis) -> None:
    key = STATUS_COUNTS.key(7)
    redis(command(key, b"SET", (1_790_000_000_000_000).to_bytes(8) + b'"replies_count":1'))
    load(redis, key, incremental.held(SNAPSHOT, struct.pack(">4I", 1, 2, 3, 4)))
    assert incremental.body(redis(command(key, b"GET"))[0]) == struct.pack(">4I", 1, 2, 3, 4)


def test_a_load_that_a_change_has_met_writes_nothing_and_one_that_was_lost_neither(redis: Redis) -> None:
    key, value = STATUS_COUNTS.key(7), incremental.held(SNAPSHOT, bytes(16))
    [token] = redis(call(b"incremental_begin", [key], b"reader-1"))
    applier = incremental.Applier()
    assert count(redis, applier, one((2, 2), 200, 1, True)) == 0
    assert redis(call(b"incremental_fill", [key], token, value, 60)) == [0]
    assert redis(call(b"incremental_begin", [key], b"reader-2")) == [applier.token]
    redis(command(key, b"DEL"))
    assert redis(call(b"incremental_fill", [key], applier.token, value, 60)) == [0]
    assert redis(command(key, b"EXISTS")) == [0]


def test_a_count_that_would_fall_below_zero_is_loaded_again(redis: Redis) -> None:
    key = STATUS_COUNTS.key(7)
    load(redis, key, incremental.held(SNAPSHOT, bytes(16)))
    taken = incremental.when((2_000, 2_000), 200) + bytes(8) + incremental.what(2, False)
    assert count(redis, incremental.Applier(), taken) == 0
    assert incremental.body(redis(command(key, b"GET"))[0]) is None


def test_values_live_for_weeks_and_marks_and_what_is_gone_for_less(redis: Redis) -> None:
    load(redis, KEY, viewer([]))
    apply(redis, one((2_000, 2_000), 200, 1, True))
    key = STATUS_COUNTS.key(7)
    redis(incremental.gone(key))
    redis(call(b"incremental_begin", [STATUS_COUNTS.key(8)], b"token..."))
    held, gone, marked = redis(*(command(each, b"TTL") for each in (KEY, key, STATUS_COUNTS.key(8))))
    assert held > 30 * 86_400
    assert 60 < gone <= incremental.GONE_SECONDS
    assert 0 < marked <= 60
