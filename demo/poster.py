"""Sends a plan's writes to the REST API, each at its time whatever became of the others (an open loop)."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import aiohttp

from demo.plan import BESIDES, Kind, Step
from fanline.errors import DependencyUnavailable

RETRY_SECONDS = 60.0
"""How long a write is tried again while the API does not answer: any server of the stack restarts faster."""

# More connections than the API has workers for only queue inside the API; this many keep it busy.
_CONNECTIONS = 64
_TIMEOUT = aiohttp.ClientTimeout(total=30)
_ACTIONS = {Kind.REPOST: "reblog", Kind.FAVOURITE: "favourite", Kind.BOOKMARK: "bookmark"}
_NO_ANSWER = (aiohttp.ClientConnectionError, aiohttp.ServerTimeoutError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A write that the API has confirmed. Times are Unix seconds."""

    step: Step
    post_id: int
    sent_at: float
    acknowledged_at: float


@dataclass(slots=True)
class Outcome:
    """What became of a plan."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    deleted: list[int] = field(default_factory=list)
    engagements: int = 0
    """Favourites and bookmarks that were acknowledged."""
    failures: list[str] = field(default_factory=list)
    retries: int = 0
    seconds: float = 0.0
    latest: float = 0.0
    """How late, in seconds, the latest write was sent: above a few milliseconds the sender was the bottleneck."""

    @property
    def posts(self) -> list[int]:
        """The ids of all posts that were acknowledged, deleted ones included."""
        return [item.post_id for item in self.acknowledged]


class Poster:
    """Sends one plan; `outcome` fills while `run` goes on. With `usernames`, replies mention those whom they answer."""

    def __init__(
        self,
        base_url: str,
        steps: Sequence[Step],
        tokens: Mapping[int, str],
        *,
        usernames: Sequence[str] = (),
        on_acknowledged: Callable[[Acknowledged], None] = lambda acknowledged: None,
    ) -> None:
        self.outcome = Outcome()
        self._base_url = base_url.rstrip("/")
        self._steps = steps
        self._tokens = tokens
        self._usernames = usernames
        self._on_acknowledged = on_acknowledged
        self._posts: list[asyncio.Future[int | None]] = []
        self._doomed = {step.target for step in steps if step.kind is Kind.DELETE}

    async def run(self) -> Outcome:
        """Send everything; returns when the last answer is there. Raises `DependencyUnavailable` if nothing answers."""
        loop = asyncio.get_running_loop()
        self._posts = [loop.create_future() for _ in self._steps]
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session:
            await self._first_contact(session)
            started = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                for number, step in enumerate(self._steps):
                    pause = started + step.at - time.monotonic()
                    if pause > 0:
                        await asyncio.sleep(pause)
                    self.outcome.latest = max(self.outcome.latest, -pause)
                    tasks.create_task(self._take(session, number, step))
            self.outcome.seconds = time.monotonic() - started
        return self.outcome

    async def _first_contact(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.get(f"{self._base_url}/health/live") as response:
                await response.read()
        except _NO_ANSWER as error:
            raise DependencyUnavailable(f"The API does not answer at {self._base_url}.") from error

    async def _take(self, session: aiohttp.ClientSession, number: int, step: Step) -> None:
        target = None if step.target is None else await self._posts[step.target]
        post_id: int | None = None
        try:
            if step.target is None or target is not None:
                post_id = await self._send(session, step, target)
        finally:
            self._posts[number].set_result(post_id)

    async def _send(self, session: aiohttp.ClientSession, step: Step, target: int | None) -> int | None:
        method, path, body = _request(step, target, self._mention(step))
        headers = {"Authorization": f"Bearer {self._tokens[step.person]}", "Idempotency-Key": str(uuid4())}
        give_up = time.monotonic() + RETRY_SECONDS
        while True:
            sent_at = time.time()
            try:
                async with session.request(method, self._base_url + path, json=body, headers=headers) as response:
                    # The DELETE was sent before (aiohttp does so, too): its answer was lost, not its effect.
                    gone = step.kind is Kind.DELETE and response.status == 404
                    if response.status == 200 or gone:
                        return self._confirm(step, target, sent_at, {} if gone else await response.json())
                    if response.status == 404 and step.target in self._doomed:
                        # A delete that was planned for later has overtaken this answer to its post.
                        return None
                    if response.status not in (502, 503, 504):
                        self._fail(step, f"{response.status} {(await response.text())[:200]}")
                        return None
                    reason = f"{response.status}"
            except _NO_ANSWER as error:
                reason = str(error) or type(error).__name__
            if time.monotonic() > give_up:
                self._fail(step, reason)
                return None
            self.outcome.retries += 1
            await asyncio.sleep(random.uniform(0.1, 0.5))

    def _confirm(self, step: Step, target: int | None, sent_at: float, answer: Mapping[str, object]) -> int | None:
        if step.kind is Kind.DELETE:
            assert target is not None
            self.outcome.deleted.append(target)
            return None
        if step.kind in BESIDES:
            self.outcome.engagements += 1
            return None
        done = Acknowledged(step, int(str(answer["id"])), sent_at, time.time())
        self.outcome.acknowledged.append(done)
        self._on_acknowledged(done)
        return done.post_id

    def _mention(self, step: Step) -> str:
        if step.kind is not Kind.REPLY or step.target is None or not self._usernames:
            return ""
        return f"@{self._usernames[self._steps[step.target].person]} "

    def _fail(self, step: Step, reason: str) -> None:
        self.outcome.failures.append(f"{step.kind} at {step.at:.2f} s: {reason}")


def _request(step: Step, target: int | None, mention: str) -> tuple[str, str, dict[str, str] | None]:
    if step.kind is Kind.DELETE:
        return "DELETE", f"/api/v1/statuses/{target}", None
    if step.kind in _ACTIONS:
        return "POST", f"/api/v1/statuses/{target}/{_ACTIONS[step.kind]}", None
    body = {"status": mention + step.text}
    if step.kind is Kind.REPLY:
        body["in_reply_to_id"] = str(target)
    return "POST", "/api/v1/statuses", body
