"""The streams of one process: admits clients, subscribes them, and ends what must end."""

import asyncio
import time
from collections.abc import AsyncIterator

from aiohttp import web

from api.auth.principal import Principal
from api.context import CONTEXT, Context
from api.drain import DRAIN
from api.errors import ApiError, bad_request
from api.streaming.catch_up import CatchUp
from api.streaming.client import Client, Ended, Subscription
from api.streaming.hub import TOPICS, Hub
from api.streaming.log import LogReader
from api.streaming.position import Position, new_position
from api.streaming.recent import KEPT_SECONDS
from api.streaming.streams import Stream, check_access, shows_notifications
from api.timelines import HOME
from fanline import metrics
from fanline.errors import DependencyUnavailable
from fanline.logging import get_logger

# A first client waits this long for the reader to have read the last minutes.
START_SECONDS = 10.0
# As long as a verified token is trusted elsewhere (api/auth/tokens.py).
RECHECK_SECONDS = 30.0
RECHECK_PAUSE_SECONDS = 1.0
MAX_SUBSCRIPTIONS = 40

_log = get_logger(__name__)


class Streams:
    """Everything that streaming needs in a process. The log is read from the first client on."""

    def __init__(self, app: web.Application) -> None:
        self.context: Context = app[CONTEXT]
        context, settings = self.context, self.context.settings
        self.hub = Hub(context.database, context.entities, context.clock)
        self._catch_up = CatchUp(self.hub, app[HOME], context.database, settings, context.entities)
        self._reader: LogReader | None = None
        self._drain = app[DRAIN]
        self._tasks = [asyncio.create_task(self._end_at_drain()), asyncio.create_task(self._recheck())]
        context.tokens.on_forget(self.hub.end_session)

    def admit(self, principal: Principal, transport: str) -> Client:
        """A new client; raises `ApiError` 429 or 503 when there are too many."""
        settings = self.context.settings
        if self._drain.draining or len(self.hub.clients) >= settings.stream_connections:
            raise ApiError(503, "This server has no room for another stream", headers={"Retry-After": "5"})
        person = principal.user_id or principal.session_id
        mine = sum(1 for each in self.hub.clients if person in (each.principal.user_id, each.principal.session_id))
        if mine >= settings.stream_connections_per_person:
            raise ApiError(429, "Too many streams are open for this account")
        client = Client(principal, settings.stream_queue, transport)
        client.checked_at = time.monotonic()
        self.hub.clients.add(client)
        metrics.STREAM_CLIENTS.labels(transport).inc()
        return client

    async def subscribe(self, client: Client, stream: Stream, position: Position | None) -> None:
        """Tell a client of a stream from now on, after what it has missed since `position`.

        Raises `ApiError` 400 or 403, and `DependencyUnavailable` when the log or the database does not answer.
        """
        check_access(stream, client.principal)
        if stream in client.subscriptions:
            return
        if len(client.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise bad_request(f"A connection listens to {MAX_SUBSCRIPTIONS} streams at most")
        await self._reading()
        fresh = position is None
        begun = position or new_position(self.context.clock.now_ms())
        if fresh and client.viewer is not None and shows_notifications(stream, client.principal):
            await self._catch_up.note_stored(client.viewer, begun)
        if client.viewer is not None:
            await self.hub.viewers.add(client.viewer)
        if client.ended is not None or stream in client.subscriptions:
            if client.viewer is not None:
                self.hub.viewers.remove(client.viewer)
            return
        subscription = client.subscription(stream, begun)
        self.hub.add(subscription)
        if fresh:
            subscription.noted = set(begun.notifications.ids)
            self.hub.note_seen(stream, client.viewer, begun)
        else:
            subscription.live = False
            subscription.task = asyncio.create_task(self._bring_up_to_date(subscription))

    def unsubscribe(self, client: Client, stream: Stream) -> None:
        """Tell a client of a stream no more."""
        subscription = client.subscriptions.pop(stream, None)
        if subscription is None:
            return
        self.hub.remove(subscription)
        if subscription.task is not None:
            subscription.task.cancel()
        if client.viewer is not None:
            self.hub.viewers.remove(client.viewer)

    def dismiss(self, client: Client) -> None:
        """A client's connection is over."""
        client.end(Ended.GONE)
        for stream in tuple(client.subscriptions):
            self.unsubscribe(client, stream)
        if client in self.hub.clients:
            self.hub.clients.discard(client)
            metrics.STREAM_CLIENTS.labels(client.transport).dec()
            assert client.ended is not None
            metrics.STREAM_ENDS.labels(client.ended.name.lower()).inc()

    async def close(self) -> None:
        """End every stream and stop reading."""
        self.hub.end_all(Ended.DRAINING)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._reader is not None:
            await self._reader.stop()

    async def _reading(self) -> None:
        """Return when the log has been read up to now; raises `DependencyUnavailable`."""
        if self._reader is None:
            self._reader = LogReader(
                self.context.settings,
                TOPICS,
                KEPT_SECONDS,
                self.hub.take,
                lambda: self.hub.end_all(Ended.LOST),
                self.hub.recent.begin,
            )
            self._reader.start()
        if not self._reader.caught_up.is_set():
            try:
                async with asyncio.timeout(START_SECONDS):
                    await self._reader.caught_up.wait()
            except TimeoutError as error:
                raise DependencyUnavailable("The log has not been read up to now.") from error

    async def _bring_up_to_date(self, subscription: Subscription) -> None:
        try:
            await self._catch_up.run(subscription)
        except DependencyUnavailable as error:
            # It has its last event id, and tries again.
            _log.warning("a stream could not be caught up", reason=str(error))
            subscription.client.end(Ended.LOST)
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - a stream must not go on with a gap, whatever made it
            subscription.client.end(Ended.LOST)
            _log.exception("a stream could not be caught up")

    async def _end_at_drain(self) -> None:
        await self._drain.begun.wait()
        self.hub.end_all(Ended.DRAINING)

    async def _recheck(self) -> None:
        """End streams whose token has expired, or was revoked while nobody could tell."""
        while True:
            await asyncio.sleep(RECHECK_PAUSE_SECONDS)
            now = time.monotonic()
            for client in tuple(self.hub.clients):
                if client.principal.expires_ms <= time.time() * 1_000:
                    client.end(Ended.REVOKED)
                elif now - client.checked_at >= RECHECK_SECONDS:
                    client.checked_at = now
                    try:
                        if not await self.context.sessions.is_good(client.principal.session_id):
                            client.end(Ended.REVOKED)
                    except DependencyUnavailable as error:
                        _log.warning("a stream's token could not be checked", reason=str(error))


STREAMS = web.AppKey("streams", Streams)


async def end_streams(app: web.Application) -> None:
    """For `on_shutdown`: streams have no end of their own, and would be waited for."""
    app[STREAMS].hub.end_all(Ended.DRAINING)


async def serve_streams(app: web.Application) -> AsyncIterator[None]:
    """For `cleanup_ctx`, after the context and the home timelines are there."""
    app[STREAMS] = streams = Streams(app)
    yield
    await streams.close()
