"""What else the pipeline has computed, read over REST: counts, notifications, search and trends, a line each."""

import re
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import aiohttp

from audit.stores import Stores
from demo.poster import Outcome
from fanline.errors import DependencyUnavailable
from readmodels.effects import Query

WORD = "bakery"
"""Looked for in the posts: one of the subjects of demo/plan.py."""

_TIMEOUT = aiohttp.ClientTimeout(total=10)
_MARKUP = re.compile("<[^>]*>")

MOST_LIKED = """
SELECT p.id, p.author_id, count(*) AS likes FROM posts p JOIN likes l ON l.post_id = p.id
WHERE p.id = ANY(%(ids)s::bigint[]) GROUP BY p.id, p.author_id ORDER BY likes DESC, p.id DESC LIMIT 1
"""


async def show(base_url: str, stores: Stores, outcome: Outcome, tokens: Mapping[UUID, str]) -> list[str]:
    """A line for each read model, of the posts of a load; raises `DependencyUnavailable` with the API's answer."""
    rows = stores.rows(Query(MOST_LIKED, {"ids": outcome.posts}))
    if not rows:
        return ["counts, notifications and trends: nobody has liked anything"]
    [liked] = rows
    headers = {"Authorization": f"Bearer {tokens[liked['author_id']]}"}
    async with aiohttp.ClientSession(base_url.rstrip("/"), headers=headers, timeout=_TIMEOUT) as session:
        return [
            _counts(await _get(session, f"/api/v1/statuses/{liked['id']}")),
            _notifications(
                await _get(session, "/api/v2/notifications"),
                await _get(session, "/api/v2/notifications/unread_count"),
            ),
            await _search(session),
            _trends(await _get(session, "/api/v1/trends/tags")),
        ]


def _counts(status: Mapping[str, Any]) -> str:
    said = _MARKUP.sub("", status["content"])
    return (
        f"counts: {status['favourites_count']} favourites, {status['reblogs_count']} reposts and"
        f" {status['replies_count']} replies for @{status['account']['username']}: {said}"
    )


def _notifications(grouped: Mapping[str, Any], unread: Mapping[str, Any]) -> str:
    names = {account["id"]: account["username"] for account in grouped["accounts"]}
    groups = grouped["notification_groups"]
    told = [f"{_who(group, names)}: {group['type']}" for group in groups[:3]]
    return f"notifications: {unread['count']} unread groups, {len(groups)} in all; {'; '.join(told) or 'none'}"


def _who(group: Mapping[str, Any], names: Mapping[str, str]) -> str:
    number, first = group["notifications_count"], names.get(group["sample_account_ids"][0], "somebody")
    return f"@{first}" if number == 1 else f"@{first} and {number - 1} more"


async def _search(session: aiohttp.ClientSession) -> str:
    started = time.perf_counter()
    found = await _get(session, f"/api/v2/search?q={WORD}&type=statuses&limit=40")
    took = (time.perf_counter() - started) * 1_000
    statuses = found["statuses"]
    return f"search: {len(statuses)} of at most 40 posts for {WORD!r} in {took:.0f} ms"


def _trends(tags: list[Mapping[str, Any]]) -> str:
    told = [f"#{tag['name']} by {tag['history'][0]['accounts']} people today" for tag in tags[:4]]
    return f"trends: {', '.join(told) or 'nothing rises'}"


async def _get(session: aiohttp.ClientSession, path: str) -> Any:
    try:
        async with session.get(path) as response:
            if response.status != 200:
                raise DependencyUnavailable(f"GET {path} answered {response.status}: {(await response.text())[:200]}.")
            return await response.json()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise DependencyUnavailable(f"GET {path} was not answered: {error}.") from error
