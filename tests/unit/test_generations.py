"""Keys of a read model's generations."""

import threading
from uuid import UUID

from readmodels import followers, generations, timelines
from readmodels.cards import STATUS_CARD
from readmodels.generations import Generations, using

SOMEBODY = UUID(int=1)


def test_the_first_generation_has_plain_keys() -> None:
    assert STATUS_CARD.key(7) == b"s:{7}"
    assert timelines.timeline_key(SOMEBODY) == b"t:{00000000-0000-0000-0000-000000000001}"


def test_another_generation_keeps_prefix_and_hash_tag() -> None:
    with using("cards", 3):
        assert STATUS_CARD.key(7) == b"s:3{7}"
        assert timelines.timeline_key(SOMEBODY).startswith(b"t:{")
    with using("followers", 12):
        assert followers.facts_key(SOMEBODY) == b"f:12{00000000-0000-0000-0000-000000000001}"
        assert generations.identifier_of(followers.facts_key(SOMEBODY) + b":4") == str(SOMEBODY).encode()


def test_generations_of_two_models_can_be_used_at_once() -> None:
    with using("cards", 1), using("timelines", 2):
        assert STATUS_CARD.key(7) == b"s:1{7}"
        assert generations.current("timelines") == 2
    assert generations.current("timelines") == 0


def test_another_thread_is_not_touched() -> None:
    seen: list[int] = []
    with using("cards", 1):
        thread = threading.Thread(target=lambda: seen.append(generations.current("cards")))
        thread.start()
        thread.join()
    assert seen == [0]


def test_what_a_process_serves_is_what_keys_are_made_of() -> None:
    try:
        assert generations.serve({"cards": 2})
        assert not generations.serve({"cards": 2})
        assert STATUS_CARD.key(7) == b"s:2{7}"
        with using("cards", 0):
            assert STATUS_CARD.key(7) == b"s:{7}"
    finally:
        generations.serve({"cards": 0})


def test_the_hash_tells_which_generations_are_written() -> None:
    assert generations.parse([None, None]) == Generations(0, None)
    assert generations.parse([b"2", b"3"]).all == (2, 3)
    assert generations.parse([b"2", None]).all == (2,)


def test_patterns_of_generations_do_not_meet() -> None:
    assert generations.pattern(b"s", 0) == b"s:{*"
    assert generations.pattern(b"s", 12) == b"s:12{*"
