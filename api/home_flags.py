"""What the viewer has done with the statuses of a page: as it is stored for them, and from SQL for what is older."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from api.database import Database
from api.documents import Found, Status
from api.home_render import Bits
from fanline.clock import Clock
from readmodels.entity_queries import STATUS_FLAGS_BY_ID
from readmodels.flags import Flags, bits_of
from readmodels.poll_documents import poll_json
from readmodels.polls import OWN_VOTES_BY_POLL

_NO_POLLS: Mapping[int, bytes] = {}


class ViewerFlags:
    """Gives a page's flags and polls; asks the database only for ids that the stored flags do not reach."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def bits(self, viewer: UUID, own: Flags, post_ids: Sequence[int], found: Found) -> Bits:
        """The flags of the page's posts; `found` has their cards. Raises `DependencyUnavailable`."""
        if not own.horizon:
            return own.bits
        older = [
            post_id
            for post_id in post_ids
            if (status := found[post_id]) is not None and not own.knows(post_id, status.conversation)
        ]
        if not older:
            return own.bits
        rows = await self._database.rows(STATUS_FLAGS_BY_ID, {"ids": older, "viewer": viewer})
        asked = {row["id"]: bits_of(row) for row in rows}

        def bits(post_id: int, conversation: int) -> int:
            known = asked.get(post_id)
            return own.bits(post_id, conversation) if known is None else known

        return bits

    async def polls(self, viewer: UUID, own: Flags, post_ids: Sequence[int], found: Found) -> Mapping[int, bytes]:
        """The JSON of the page's Poll entities by id; `found` has the polls' rows. Raises `DependencyUnavailable`."""
        statuses: list[Status] = [
            status for post_id in post_ids if (status := found[post_id]) is not None and status.poll_key is not None
        ]
        if not statuses:
            return _NO_POLLS
        votes = own.votes
        if older := [status.poll for status in statuses if status.poll <= own.votes_horizon]:
            rows = await self._database.rows(OWN_VOTES_BY_POLL, {"viewer": viewer, "ids": older})
            votes = {**votes, **{row["id"]: row["own_votes"] for row in rows}}
        now = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        polls = {status.poll: found[status.poll_key] for status in statuses}
        return {
            poll: poll_json(row, viewer, votes.get(poll, []), now) for poll, row in polls.items() if row is not None
        }
