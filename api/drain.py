"""Requests under way, so that a process can end without dropping one.

aiohttp's own shutdown throws away what arrives of a body once it has begun, so requests have to end before it.
"""

import asyncio

from aiohttp import web


class Drain:
    """Counts requests, and knows whether the process is about to end."""

    def __init__(self) -> None:
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False
        """Whether no further requests are wanted."""
        self.begun = asyncio.Event()
        """Set when that begins: requests that have no end of their own then end."""

    def enter(self) -> None:
        """A request has begun."""
        self._under_way += 1
        self._idle.clear()

    def leave(self) -> None:
        """A request was answered."""
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()

    async def finish(self, seconds: float) -> bool:
        """Want no more requests and wait for those under way, so long at most; whether all were answered."""
        self.draining = True
        self.begun.set()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True


DRAIN = web.AppKey("drain", Drain)
