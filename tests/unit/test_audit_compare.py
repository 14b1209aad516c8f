import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.compare import Difference, Tally, compare_documents, compare_sequences, compare_sets, is_equal


@pytest.mark.parametrize(
    ("actual", "difference"),
    [
        ([5, 4, 3], Difference()),
        ([5, 3], Difference(missing=1)),
        ([], Difference(missing=3)),
        ([6, 5, 4, 3], Difference(extra=1)),
        ([5, 5, 4, 3, 5], Difference(duplicate=2)),
        ([4, 5, 3], Difference(out_of_order=1)),
        ([3, 5, 4], Difference(out_of_order=2)),
        ([9, 3, 3, 5], Difference(missing=1, extra=1, duplicate=1, out_of_order=1)),
    ],
)
def test_each_fault_of_a_list_is_counted_by_its_name(actual: list[int], difference: Difference) -> None:
    assert compare_sequences([5, 4, 3], actual) == difference


@given(st.lists(st.integers(0, 6), unique=True), st.lists(st.integers(0, 6)))
def test_two_lists_differ_exactly_when_they_are_not_equal(expected: list[int], actual: list[int]) -> None:
    assert bool(compare_sequences(expected, actual)) == (expected != actual)


@given(st.sets(st.integers(0, 6)), st.lists(st.integers(0, 6)))
def test_two_collections_differ_exactly_when_one_has_what_the_other_has_not(
    expected: set[int], actual: list[int]
) -> None:
    assert bool(compare_sets(expected, actual)) == (sorted(expected) != sorted(actual))


@pytest.mark.parametrize(
    ("expected", "actual", "difference"),
    [
        (b"a", b"a", Difference()),
        (b"a", b"", Difference(missing=1)),
        (b"", b"a", Difference(extra=1)),
        (b"a", b"b", Difference(missing=1, extra=1)),
    ],
)
def test_a_document_is_missing_left_over_or_wrong(expected: bytes, actual: bytes, difference: Difference) -> None:
    assert compare_documents(expected, actual) == difference


def test_a_tally_adds_up_and_keeps_the_first_examples() -> None:
    tally = Tally()
    tally.add("ada", Difference())
    for name in "bcdefgh":
        tally.add(name, Difference(missing=2, duplicate=1))
    assert (tally.checked, tally.equal, tally.missing, tally.duplicate) == (8, 1, 14, 7)
    assert tally.examples[0] == "b: 2 missing, 1 duplicate"
    assert len(tally.examples) == 5


def test_a_report_is_equal_only_when_every_read_model_is() -> None:
    good, bad = Tally(), Tally()
    good.add("a", Difference())
    assert is_equal({"timelines": good, "cards": Tally()})
    bad.add("a", Difference(extra=1))
    assert not is_equal({"timelines": good, "cards": bad})
