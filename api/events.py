"""The encoder of domain events, made when the registry first answers."""

import asyncio

from fanline.settings import Settings
from schemas.registry import EventEncoder, encoder


class Events:
    """Gives the process' encoder; asks the registry once for the schemas' ids."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._encoder: EventEncoder | None = None
        self._lock = asyncio.Lock()

    @property
    def ready(self) -> bool:
        """Whether events can be encoded without the registry."""
        return self._encoder is not None

    async def encoder(self) -> EventEncoder:
        """The encoder; raises `DependencyUnavailable` while the registry has never answered."""
        if self._encoder is None:
            async with self._lock:
                if self._encoder is None:
                    self._encoder = await asyncio.to_thread(encoder, self._settings)
        return self._encoder
