"""What a process keeps of Redis, exact as of Redis' latest push (see `api/redis_tracking.py`).

The race that the Redis documentation describes (client-side caching, "Avoiding race conditions"): a key changes while
its value is on the way here over another connection, and the push overtakes the value. So a fetch is announced before
it is sent, a push takes the announcement away, and a value without one is served but not kept.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

# What a dictionary's slot, the key and the tuple cost on top of the value's own bytes, roughly.
OVERHEAD_BYTES = 250


class DocumentCache:
    """Values by Redis key, the least recently used going first when `max_bytes` are exceeded.

    It is a `Keeper` for `RedisTracking`; until that has said `start` it keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()
        self._fetches: dict[bytes, int] = {}
        self._last_fetch = 0
        self._bytes = 0
        self._live = False

    @property
    def live(self) -> bool:
        """Whether values are kept."""
        return self._live

    def __len__(self) -> int:
        return len(self._values)

    @property
    def size_bytes(self) -> int:
        """What the kept values take, roughly."""
        return self._bytes

    def get(self, key: bytes) -> Any:
        """The kept value, or None."""
        kept = self._values.get(key)
        if kept is None:
            return None
        self._values.move_to_end(key)
        return kept[0]

    def announce(self, keys: Iterable[bytes]) -> int:
        """Say that these keys are about to be fetched; the answer is for `keep` and `forget`."""
        self._last_fetch += 1
        if self._live:
            self._fetches.update(dict.fromkeys(keys, self._last_fetch))
        return self._last_fetch

    def keep(self, fetch: int, key: bytes, value: Any, size: int) -> None:
        """Keep a fetched value of `size` bytes, unless the key has changed since the fetch was announced."""
        if self._fetches.get(key) != fetch:
            return
        del self._fetches[key]
        self.drop(key)
        self._values[key] = (value, size)
        self._bytes += size + OVERHEAD_BYTES
        while self._bytes > self._max_bytes:
            _, (_, oldest) = self._values.popitem(last=False)
            self._bytes -= oldest + OVERHEAD_BYTES

    def forget(self, fetch: int, keys: Iterable[bytes]) -> None:
        """End a fetch whatever became of it: announcements that are left are taken back."""
        for key in keys:
            if self._fetches.get(key) == fetch:
                del self._fetches[key]

    def drop(self, key: bytes) -> None:
        """The key has changed in Redis."""
        self._fetches.pop(key, None)
        kept = self._values.pop(key, None)
        if kept is not None:
            self._bytes -= kept[1] + OVERHEAD_BYTES

    def flush(self) -> None:
        """Every key may have changed."""
        self._values.clear()
        self._fetches.clear()
        self._bytes = 0

    def start(self) -> None:
        """Changes are told from now on."""
        self._live = True

    def stop(self) -> None:
        """Changes are no longer told."""
        self._live = False
        self.flush()
