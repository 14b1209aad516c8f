from hypothesis import given
from hypothesis import strategies as st

from fanline.ids import MAX_ID
from readmodels.entries import (
    NO_GENERATION,
    Entry,
    complete_above,
    floor_and_entries,
    newest_first,
    pack_entry,
    unpack_entry,
)

ids = st.integers(min_value=1, max_value=MAX_ID)


@given(ids)
def test_a_post_takes_eight_bytes(post_id: int) -> None:
    assert len(pack_entry(post_id, None)) == 8
    assert unpack_entry(pack_entry(post_id, None)) == Entry(post_id, post_id)


@given(ids, ids)
def test_a_repost_carries_its_original(post_id: int, original: int) -> None:
    assert unpack_entry(pack_entry(post_id, original)) == Entry(post_id, original)


@given(st.lists(ids))
def test_order_and_duplicates_in_a_list_do_not_matter(posts: list[int]) -> None:
    items = [b"F" + bytes(16), *(pack_entry(post_id, None) for post_id in posts + posts)]
    assert [entry.id for entry in newest_first(items)] == sorted(set(posts), reverse=True)


def test_a_list_that_is_absent_or_being_built_or_of_another_generation_is_not_complete() -> None:
    generation = b"abcdefgh"
    header = b"F" + (77).to_bytes(8) + generation
    assert complete_above(header, generation) == 77
    assert complete_above(header, NO_GENERATION) is None
    assert complete_above(None, generation) is None
    assert complete_above(b"B" + bytes(16) + generation, generation) is None


def test_the_floor_is_the_newest_post_that_did_not_fit() -> None:
    rows = [{"id": n, "repost_of_id": None} for n in (9, 8, 7, 6)]
    assert floor_and_entries(rows, 3) == (6, [pack_entry(n, None) for n in (9, 8, 7)])
    assert floor_and_entries(rows, 4)[0] == 0
