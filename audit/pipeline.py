"""Waits until the pipeline has passed what is committed."""

import asyncio

from audit.run import Wait
from connectors.barrier import Barrier
from fanline.settings import Settings


def waiter(settings: Settings, timeout: float | None) -> Wait:
    """What waits for the pipeline, at most `timeout` seconds each time; None: nothing is waited for."""

    async def wait() -> None:
        if timeout is not None:
            await asyncio.to_thread(Barrier(settings).wait, timeout)

    return wait
