"""The process's copies of Redis are never older than the latest push."""

import pytest

from api.document_cache import OVERHEAD_BYTES, DocumentCache


def live_cache(max_bytes: int = 1_000_000) -> DocumentCache:
    cache = DocumentCache(max_bytes)
    cache.start()
    return cache


def fetch(cache: DocumentCache, key: bytes, value: object, *, size: int = 1) -> None:
    cache.keep(cache.announce([key]), key, value, size)


def test_a_fetched_value_is_kept() -> None:
    cache = live_cache()
    fetch(cache, b"s:{1}", b"one")
    assert cache.get(b"s:{1}") == b"one"


def test_a_change_drops_the_value() -> None:
    cache = live_cache()
    fetch(cache, b"s:{1}", b"one")
    cache.drop(b"s:{1}")
    assert cache.get(b"s:{1}") is None
    assert cache.size_bytes == 0


def test_a_value_that_a_change_overtook_is_not_kept() -> None:
    cache = live_cache()
    announced = cache.announce([b"s:{1}"])
    cache.drop(b"s:{1}")
    cache.keep(announced, b"s:{1}", b"old", 1)
    assert cache.get(b"s:{1}") is None


def test_a_fetch_that_began_after_the_change_is_kept_though_an_older_one_ends_later() -> None:
    cache = live_cache()
    older = cache.announce([b"s:{1}"])
    cache.drop(b"s:{1}")
    newer = cache.announce([b"s:{1}"])
    cache.keep(newer, b"s:{1}", b"new", 1)
    cache.keep(older, b"s:{1}", b"old", 1)
    assert cache.get(b"s:{1}") == b"new"


@pytest.mark.parametrize("loss", ["stop", "flush"])
def test_a_fetch_across_a_lost_connection_or_a_flush_is_not_kept(loss: str) -> None:
    cache = live_cache()
    fetch(cache, b"s:{2}", b"two")
    announced = cache.announce([b"s:{1}"])
    getattr(cache, loss)()
    cache.start()
    cache.keep(announced, b"s:{1}", b"old", 1)
    assert cache.get(b"s:{1}") is None
    assert cache.get(b"s:{2}") is None


def test_nothing_is_kept_before_changes_are_told() -> None:
    cache = DocumentCache(1_000_000)
    announced = cache.announce([b"s:{1}"])
    cache.start()
    cache.keep(announced, b"s:{1}", b"old", 1)
    assert cache.get(b"s:{1}") is None


def test_an_ended_fetch_leaves_no_announcement() -> None:
    cache = live_cache()
    announced = cache.announce([b"s:{1}"])
    cache.forget(announced, [b"s:{1}"])
    cache.keep(announced, b"s:{1}", b"late", 1)
    assert cache.get(b"s:{1}") is None


def test_what_is_used_stays_and_what_is_not_goes() -> None:
    cache = live_cache(8 * (OVERHEAD_BYTES + 10))
    for number in range(100):
        fetch(cache, b"%d" % number, number, size=10)
        assert cache.get(b"0") == 0
        assert cache.size_bytes <= 8 * (OVERHEAD_BYTES + 10)
    assert cache.get(b"99") == 99
    assert cache.get(b"1") is None
    assert cache.size_bytes == len(cache) * (OVERHEAD_BYTES + 10)


def test_many_values_are_found_across_a_change_of_generations() -> None:
    cache = live_cache(8 * (OVERHEAD_BYTES + 10))
    for number in range(6):
        fetch(cache, b"%d" % number, number, size=10)
    found: dict[bytes, object] = {}
    wanted = [b"%d" % number for number in range(7)]
    missing = cache.get_many(wanted, found)
    assert set(missing) | found.keys() == set(wanted)
    assert b"6" in missing
    assert all(found[key] == int(key) for key in found)


def test_replacing_a_value_counts_its_bytes_once() -> None:
    cache = live_cache()
    fetch(cache, b"a", b"x", size=10)
    fetch(cache, b"a", b"y", size=20)
    assert cache.size_bytes == OVERHEAD_BYTES + 20
