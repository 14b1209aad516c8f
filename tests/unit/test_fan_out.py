from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from readmodels.fan_out import FanOut, FanOutQueue


def fan_out(number: int, chunks: int) -> FanOut:
    return FanOut(UUID(int=number), number.to_bytes(8), 0, chunks=chunks)


def test_a_small_post_passes_between_the_chunks_of_a_large_one() -> None:
    queue: FanOutQueue[str] = FanOutQueue()
    large, small = fan_out(1, 100), fan_out(2, 1)
    queue.add("p0", large)
    order = []
    for turn in range(5):
        if turn == 2:
            queue.add("p0", small)
        for taken, _ in queue.take(1):
            order.append(taken)
            queue.finish(taken, taken.chunks)
    assert order.index(small) <= 3
    assert not large.is_done


def test_progress_waits_for_every_earlier_post_of_its_partition_and_for_no_other() -> None:
    queue: FanOutQueue[str] = FanOutQueue()
    large = fan_out(1, 2)
    queue.add("p0", large)
    queue.mark("p0", "p0 passed")
    queue.add("p1", fan_out(2, 1))
    queue.mark("p1", "p1 passed")
    for taken, _ in queue.take(2):
        queue.finish(taken, taken.chunks)
    assert queue.release() == ["p1 passed"]
    for taken, _ in queue.take(2):
        queue.finish(taken, taken.chunks)
    assert queue.release() == ["p0 passed"]


def test_a_chunk_that_was_added_while_the_post_was_on_its_way_is_visited_too() -> None:
    queue: FanOutQueue[str] = FanOutQueue()
    queue.add("p0", fan_out(1, 1))
    [(taken, first)] = queue.take(1)
    queue.finish(taken, 2)
    [(again, second)] = queue.take(1)
    assert (taken is again, first, second) == (True, 0, 1)


def test_a_post_without_chunks_is_done_at_once() -> None:
    queue: FanOutQueue[str] = FanOutQueue()
    queue.add("p0", fan_out(1, 0))
    queue.mark("p0", "passed")
    assert not queue
    assert queue.release() == ["passed"]


@given(st.lists(st.tuples(st.sampled_from(["p0", "p1"]), st.integers(0, 4)), max_size=20), st.integers(1, 5))
def test_every_chunk_is_taken_once_and_every_mark_released_in_order(posts: list[tuple[str, int]], turn: int) -> None:
    queue: FanOutQueue[str] = FanOutQueue()
    for number, (source, chunks) in enumerate(posts):
        queue.add(source, fan_out(number, chunks))
        queue.mark(source, (source, number))
    taken: list[tuple[UUID, int]] = []
    released = queue.release()
    while queue:
        for found, index in queue.take(turn):
            taken.append((found.author, index))
            queue.finish(found, found.chunks)
        released += queue.release()
    expected = [(UUID(int=number), index) for number, (_, chunks) in enumerate(posts) for index in range(chunks)]
    assert sorted(taken) == sorted(expected)
    for source in ("p0", "p1"):
        marks = [number for found, number in released if found == source]
        assert marks == [number for number, (found, _) in enumerate(posts) if found == source]


def test_what_is_pending_can_be_taken_up_by_another_queue() -> None:
    queue: FanOutQueue[str] = FanOutQueue()
    queue.add("p0", fan_out(1, 3))
    queue.add("p0", fan_out(2, 1))
    for taken, _ in queue.take(2):
        queue.finish(taken, taken.chunks)
    again: FanOutQueue[str] = FanOutQueue()
    for source, waiting in queue.pending():
        again.add(source, waiting.copy())
    assert [(found.author, index) for found, index in again.take(5)] == [(UUID(int=1), 1)]
