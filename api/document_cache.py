"""What a process keeps of Redis, exact as of Redis' latest push (see `api/redis_tracking.py`).

The race that the Redis documentation describes (client-side caching, "Avoiding race conditions"): a key changes while
its value is on the way here over another connection, and the push overtakes the value. So a fetch is announced before
it is sent, a push takes the announcement away, and a value without one is served but not kept.
"""

from collections.abc import Hashable, Iterable
from typing import Any

# What a dictionary's slot, the key and the tuple cost on top of the value's own bytes, roughly.
OVERHEAD_BYTES = 250

Key = Hashable


class DocumentCache:
    """Values by key, of at most `max_bytes`; what has not been used for long goes first.

    Values live in two generations. What is used moves to the young one; when that has half of the bytes it becomes the
    old one, and what was left in the old one goes. So a hit costs a look-up, and no list is kept in order.

    It is a `Keeper` for `RedisTracking`; until that has said `start` it keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._young: dict[Key, tuple[Any, int]] = {}
        self._old: dict[Key, tuple[Any, int]] = {}
        self._young_bytes = 0
        self._old_bytes = 0
        self._fetches: dict[Key, int] = {}
        self._last_fetch = 0
        self._live = False

    @property
    def live(self) -> bool:
        """Whether values are kept."""
        return self._live

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    @property
    def size_bytes(self) -> int:
        """What the kept values take, roughly."""
        return self._young_bytes + self._old_bytes

    def get(self, key: Key) -> Any:
        """The kept value, or None."""
        kept = self._young.get(key) or self._rescue(key)
        return None if kept is None else kept[0]

    def get_many(self, keys: Iterable[Key], found: dict[Any, Any]) -> list[Any]:
        """Put the kept values into `found` by key; the keys of which none is kept."""
        young = self._young
        missing = []
        for key in keys:
            kept = young.get(key) or self._rescue(key)
            if kept is None:
                missing.append(key)
            else:
                found[key] = kept[0]
        return missing

    def announce(self, keys: Iterable[Key]) -> int:
        """Say that these keys are about to be fetched; the answer is for `keep` and `forget`."""
        self._last_fetch += 1
        if self._live:
            self._fetches.update(dict.fromkeys(keys, self._last_fetch))
        return self._last_fetch

    def keep(self, fetch: int, key: Key, value: Any, size: int) -> None:
        """Keep a fetched value of `size` bytes, unless the key has changed since the fetch was announced."""
        if self._fetches.get(key) != fetch:
            return
        del self._fetches[key]
        self.drop(key)
        self._add(key, (value, size + OVERHEAD_BYTES))

    def forget(self, fetch: int, keys: Iterable[Key]) -> None:
        """End a fetch whatever became of it: announcements that are left are taken back."""
        for key in keys:
            if self._fetches.get(key) == fetch:
                del self._fetches[key]

    def drop(self, key: Key) -> None:
        """What was read for the key is no longer so."""
        self._fetches.pop(key, None)
        kept = self._young.pop(key, None)
        if kept is not None:
            self._young_bytes -= kept[1]
        else:
            kept = self._old.pop(key, None)
            if kept is not None:
                self._old_bytes -= kept[1]

    def flush(self) -> None:
        """Every key may have changed."""
        self._young.clear()
        self._old.clear()
        self._fetches.clear()
        self._young_bytes = self._old_bytes = 0

    def start(self) -> None:
        """Changes are told from now on."""
        self._live = True

    def stop(self) -> None:
        """Changes are no longer told."""
        self._live = False
        self.flush()

    def _rescue(self, key: Key) -> tuple[Any, int] | None:
        kept = self._old.pop(key, None)
        if kept is not None:
            self._old_bytes -= kept[1]
            self._add(key, kept)
        return kept

    def _add(self, key: Key, kept: tuple[Any, int]) -> None:
        if (self._young_bytes + kept[1]) * 2 > self._max_bytes:
            # The dictionaries stay the same objects: `get_many` may be going through them.
            self._old.clear()
            self._old.update(self._young)
            self._young.clear()
            self._old_bytes, self._young_bytes = self._young_bytes, 0
        self._young[key] = kept
        self._young_bytes += kept[1]
