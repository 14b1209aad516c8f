"""The courier: sends what is due through one channel, in a thread of its own beside a flow.

The flow only makes rows of `notification_deliveries` and commits its offsets, so no target ever holds it up. The
courier claims due rows, a target at a time, and sends some of them at once; a target that fails waits longer each time,
a server that cannot be reached is left alone for a while whoever its targets are.
"""

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from connectors.events import Event
from connectors.waiting import Waiting
from fanline import metrics
from fanline.database import AsyncCountingCursor, open_async_pool
from fanline.errors import DependencyUnavailable
from fanline.logging import get_logger
from fanline.settings import Settings
from readmodels import channel_deliveries
from readmodels.channel_deliveries import Channel
from readmodels.effects import Query
from sinks.batch import BatchSink, BatchWriter
from sinks.outcome import Outcome

Row = dict[str, Any]
Rows = Callable[[Query], Awaitable[list[Row]]]

# Sent at once, to as many targets: enough for a thousand messages a second at 50 ms each.
IN_FLIGHT = 64
# What other processes enqueue, and what waits for its time, is looked for at least this often.
LONGEST_SLEEP_SECONDS = 5.0
JANITOR_SECONDS = 60.0
DATABASE_PAUSE_SECONDS = 1.0
# A process that ends lets what it is sending come to its end: longer than a message may take.
CLOSE_SECONDS = 20.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Parcel:
    """Claimed deliveries to one target, and what is to be sent."""

    target: UUID
    ids: tuple[int, ...]
    attempts: int
    server: str
    """Whom a failure to connect speaks against: the host of a push service, the mail server."""
    content: Any


class Carrier(Protocol):
    """What a channel knows of its own."""

    channel: Channel
    whole: bool
    """Whether all that is due for a target goes in one parcel."""
    in_flight: int

    async def open(self, rows: Rows) -> None:
        """Called once inside the courier's event loop; may raise `DependencyUnavailable`, and is called again then."""

    async def pack(self, claimed: Mapping[UUID, Sequence[Row]], rows: Rows) -> list[Parcel]:
        """What is to be sent to claimed targets; deliveries that are not in a parcel are skipped."""

    async def send(self, parcel: Parcel) -> Outcome:
        """Send it."""

    async def gone(self, parcel: Parcel, rows: Rows) -> None:
        """The target exists no more."""

    async def extra(self, rows: Rows) -> None:
        """Other work that comes up now and then."""

    async def close(self) -> None:
        """The end."""


class Courier:
    """One channel's sender; `wake` it when something was enqueued, `close` it when the flow ends."""

    def __init__(self, carrier: Carrier, settings: Settings) -> None:
        self._carrier, self._settings = carrier, settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None
        self._stopping = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="courier", daemon=True)
        self._in_flight: dict[UUID, asyncio.Task[None]] = {}
        self._left_alone: dict[str, tuple[float, int]] = {}
        self._waiting = Waiting(f"{carrier.channel} courier")

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()
        self._started.wait()

    def wake(self) -> None:
        """Something may be due."""
        if self._loop is not None and self._woken is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    def close(self) -> None:
        """Send nothing more, and wait for what is being sent."""
        self._stopping = True
        self.wake()
        self._thread.join(CLOSE_SECONDS)

    async def _run(self) -> None:
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        self._started.set()
        pool = await open_async_pool(self._settings, max_size=4)
        rows = _rows_of(pool)
        try:
            await self._until_open(rows)
            looked = float("-inf")
            while not self._stopping:
                self._woken.clear()
                try:
                    if time.monotonic() - looked > JANITOR_SECONDS:
                        looked = time.monotonic()
                        await rows(channel_deliveries.abandoned(self._carrier.channel))
                    await self._carrier.extra(rows)
                    await self._send_due(rows)
                    pause = await self._pause(rows)
                    self._waiting.passed()
                except DependencyUnavailable as error:
                    self._waiting.note(error)
                    pause = DATABASE_PAUSE_SECONDS
                await self._sleep(pause)
            await asyncio.gather(*self._in_flight.values(), return_exceptions=True)
        finally:
            await self._carrier.close()
            await pool.close()

    async def _until_open(self, rows: Rows) -> None:
        while not self._stopping:
            try:
                await self._carrier.open(rows)
                return
            except DependencyUnavailable as error:
                self._waiting.note(error)
                await self._sleep(DATABASE_PAUSE_SECONDS)

    async def _sleep(self, seconds: float) -> None:
        assert self._woken is not None
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _pause(self, rows: Rows) -> float:
        if len(self._in_flight) >= self._carrier.in_flight:
            return LONGEST_SLEEP_SECONDS
        [row] = await rows(channel_deliveries.next_due(self._carrier.channel, list(self._in_flight)))
        return LONGEST_SLEEP_SECONDS if row["seconds"] is None else min(LONGEST_SLEEP_SECONDS, max(0.0, row["seconds"]))

    async def _send_due(self, rows: Rows) -> None:
        """Claim as much as there is room for, and begin to send it."""
        carrier = self._carrier
        room = carrier.in_flight - len(self._in_flight)
        if room <= 0:
            return
        found = await rows(channel_deliveries.claim(carrier.channel, room, list(self._in_flight), whole=carrier.whole))
        claimed: dict[UUID, list[Row]] = {}
        for row in found:
            claimed.setdefault(row["target"], []).append(row)
        if not claimed:
            return
        parcels = {parcel.target: parcel for parcel in await carrier.pack(claimed, rows)}
        for target, given in claimed.items():
            parcel = parcels.get(target)
            wanted = frozenset(parcel.ids) if parcel is not None else frozenset()
            unwanted = [row["notification_id"] for row in given if row["notification_id"] not in wanted]
            if unwanted:
                await self._note(rows, channel_deliveries.finish(carrier.channel, target, unwanted, "skipped", None))
                metrics.CHANNEL_SENDS.labels(carrier.channel, "skipped").inc(len(unwanted))
            if parcel is not None:
                task = asyncio.create_task(self._deliver(parcel, rows))
                self._in_flight[target] = task
                task.add_done_callback(lambda _, target=target: self._landed(target))  # type: ignore[misc]

    def _landed(self, target: UUID) -> None:
        self._in_flight.pop(target, None)
        if self._woken is not None:
            self._woken.set()

    async def _deliver(self, parcel: Parcel, rows: Rows) -> None:
        carrier = self._carrier
        alone_until, failures = self._left_alone.get(parcel.server, (0.0, 0))
        now = time.monotonic()
        if alone_until > now:
            wait = alone_until - now
            again = channel_deliveries.postpone(
                carrier.channel, parcel.target, parcel.ids, wait, "The server is left alone.", counted=False
            )
            await self._note(rows, again)
            return
        if failures:
            # One goes and looks whether the server is back; the others wait for what it finds.
            self._left_alone[parcel.server] = now + self._backed_off(failures), failures
        started = time.monotonic()
        outcome = await carrier.send(parcel)
        metrics.CHANNEL_SENDS.labels(carrier.channel, outcome.kind).inc(len(parcel.ids))
        metrics.CHANNEL_SEND_SECONDS.labels(carrier.channel).observe(time.monotonic() - started)
        if outcome.unreached:
            self._left_alone[parcel.server] = time.monotonic() + self._backed_off(failures + 1), failures + 1
        else:
            self._left_alone.pop(parcel.server, None)
        await self._settle(parcel, outcome, rows)

    async def _settle(self, parcel: Parcel, outcome: Outcome, rows: Rows) -> None:
        channel, target, ids = self._carrier.channel, parcel.target, parcel.ids
        if outcome.kind != "sent":
            _log.warning("not delivered", channel=channel, target=str(target), what=outcome.kind, reason=outcome.reason)
        if outcome.kind == "retry":
            pause = outcome.after_seconds or self._backed_off(parcel.attempts)
            await self._note(rows, channel_deliveries.postpone(channel, target, ids, pause, outcome.reason or ""))
            return
        state = "failed" if outcome.kind == "gone" else outcome.kind
        await self._note(rows, channel_deliveries.finish(channel, target, ids, state, outcome.reason))
        if outcome.kind == "gone":
            while not self._stopping:
                try:
                    await self._carrier.gone(parcel, rows)
                    return
                except DependencyUnavailable:
                    await asyncio.sleep(DATABASE_PAUSE_SECONDS)

    def _backed_off(self, attempts: int) -> float:
        seconds = channel_deliveries.pause_seconds(attempts, self._settings.delivery_retry_seconds)
        return seconds * random.uniform(0.8, 1.2)

    async def _note(self, rows: Rows, query: Query) -> None:
        """Write down what became of something, however long the database takes; an end of the process loses it."""
        while True:
            try:
                await rows(query)
                return
            except DependencyUnavailable as error:
                if self._stopping:
                    _log.warning("an outcome was not written down", channel=self._carrier.channel, reason=str(error))
                    return
                await asyncio.sleep(DATABASE_PAUSE_SECONDS)


class CourierSink(BatchSink):
    """A `BatchSink` that starts a courier, wakes it when there is something to send, and closes it at the flow's end.

    `enqueue` says whether a batch has made deliveries: most notifications go to people without a subscription.
    """

    def __init__(self, enqueue: Callable[[Sequence[Any]], bool], group: str, courier: Courier, *, name: str) -> None:
        def apply(items: Sequence[Any]) -> None:
            if enqueue(items):
                courier.wake()

        super().__init__(apply, group, name=name)
        self._courier = courier

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "CourierWriter":
        """The sink's part."""
        return CourierWriter(self._apply, self._group, self._name, self._courier)


class CourierWriter(BatchWriter):
    """The sink's part."""

    def __init__(self, apply: Callable[[Sequence[Any]], None], group: str, name: str, courier: Courier) -> None:
        super().__init__(apply, group, name)
        self._courier = courier
        courier.start()

    def release(self) -> None:
        """Let what is being sent come to its end."""
        self._courier.close()


def newer_than(days: int) -> Callable[[Event], int | None]:
    """The notification's id in a `notification.dispatched`; None if it is so old that nobody is told any more.

    A day is added, as the database decides.
    """

    def identifier(event: Event) -> int | None:
        age = datetime.now(UTC) - event.fields["created_at"]
        return int(event.fields["notification_id"]) if age < timedelta(days=days + 1) else None

    return identifier


def _rows_of(pool: AsyncConnectionPool[psycopg.AsyncConnection[Any]]) -> Rows:
    async def rows(query: Query) -> list[Row]:
        try:
            async with pool.connection() as connection, AsyncCountingCursor(connection, row_factory=dict_row) as cursor:
                await cursor.execute(query.sql.encode(), query.parameters)
                return list(await cursor.fetchall())
        except psycopg.OperationalError as error:
            reason = str(error).strip() or repr(error)
            raise DependencyUnavailable(f"The database does not answer: {reason}.", "database") from error

    return rows
