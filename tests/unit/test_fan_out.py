from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from readmodels.fan_out import POSTS_A_TURN, FanOut, FanOutQueue


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
        for taken in queue.take(1):
            order += taken.fan_outs
            queue.finish(taken, taken.fan_outs[0].chunks)
    assert order.index(small) <= 3
    assert not large.is_done


def test_progress_waits_for_every_earlier_post_of_its_partition_and_for_no_other() -> None:
    queue: FanOutQueue[str] = FanOutQueue()
    large = fan_out(1, 2)
    queue.add("p0", large)
    queue.mark("p0", "p0 passed")
    queue.add("p1", fan_out(2, 1))
    queue.mark("p1", "p1 passed")
    for taken in queue.take(2):
        queue.finish(taken, taken.fan_outs[0].chunks)
    assert queue.release() == ["p1 passed"]
    for taken in queue.take(2):
        queue.finish(taken, taken.fan_outs[0].chunks)
    assert queue.release() == ["p0 passed"]


def test_a_chunk_that_was_added_while_the_post_was_on_its_way_is_visited_too() -> None:
    queue: FanOutQueue[str] = FanOutQueue()
    queue.add("p0", fan_out(1, 1))
    [first] = queue.take(1)
    queue.finish(first, 2)
    [second] = queue.take(1)
    assert (first.fan_outs == second.fan_outs, first.chunk, second.chunk) == (True, 0, 1)


def test_a_post_without_chunks_is_done_at_once() -> None:
    queue: FanOutQueue[str] = FanOutQueue()
    queue.add("p0", fan_out(1, 0))
    queue.mark("p0", "passed")
    assert not queue
    assert queue.release() == ["passed"]


@given(
    st.lists(st.tuples(st.sampled_from(["p0", "p1"]), st.integers(0, 2)), max_size=80),
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)),
    st.integers(1, 5),
)
def test_every_post_goes_to_every_chunk_once_and_every_mark_is_released_in_order(
    posts: list[tuple[str, int]], chunks: tuple[int, int, int], turns: int
) -> None:
    queue: FanOutQueue[str] = FanOutQueue()
    for number, (source, author) in enumerate(posts):
        queue.add(source, FanOut(UUID(int=author), number.to_bytes(8), 0, chunks=chunks[author]))
        queue.mark(source, (source, number))
    taken: list[tuple[bytes, int]] = []
    released = queue.release()
    while queue:
        assert len(queue) == sum(not waiting.is_done for _, waiting in queue.pending())
        for turn in queue.take(turns):
            assert len(turn.fan_outs) <= POSTS_A_TURN
            assert {fan_out.author for fan_out in turn.fan_outs} == {turn.author}
            taken += [(fan_out.entry, turn.chunk) for fan_out in turn.fan_outs]
            queue.finish(turn, chunks[turn.author.int])
        released += queue.release()
    expected = [
        (number.to_bytes(8), index) for number, (_, author) in enumerate(posts) for index in range(chunks[author])
    ]
    assert sorted(taken) == sorted(expected)
    for source in ("p0", "p1"):
        marks = [number for found, number in released if found == source]
        assert marks == [number for number, (found, _) in enumerate(posts) if found == source]


def test_what_is_pending_can_be_taken_up_by_another_queue() -> None:
    queue: FanOutQueue[str] = FanOutQueue()
    queue.add("p0", fan_out(1, 3))
    queue.add("p0", fan_out(2, 1))
    for taken in queue.take(2):
        queue.finish(taken, taken.fan_outs[0].chunks)
    again: FanOutQueue[str] = FanOutQueue()
    for source, waiting in queue.pending():
        again.add(source, waiting.copy())
    assert [(turn.author, turn.chunk) for turn in again.take(5)] == [(UUID(int=1), 1)]


def test_posts_of_one_author_that_wait_for_the_same_chunk_share_a_turn() -> None:
    queue: FanOutQueue[str] = FanOutQueue()
    posts = [FanOut(UUID(int=1), number.to_bytes(8), 0, chunks=2) for number in range(POSTS_A_TURN + 1)]
    queue.add("p0", posts[0])
    queue.add("p0", fan_out(2, 1))
    for post in posts[1:]:
        queue.add("p0", post)
    assert [turn.fan_outs for turn in queue.take(3)] == [posts[:POSTS_A_TURN], [fan_out(2, 1)], posts[POSTS_A_TURN:]]
