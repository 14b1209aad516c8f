"""Who may do what others may not: moderators and admins."""

from uuid import UUID

from aiohttp import web

from api.auth.principal import require_user
from api.context import context_of
from api.database import Database
from api.errors import forbidden

SELECT_ROLE = "SELECT role FROM identities WHERE user_id = %(id)s"
MODERATORS = frozenset(("moderator", "admin"))


async def is_moderator(database: Database, user_id: UUID) -> bool:
    """Whether a person is a moderator or an admin."""
    row = await database.row(SELECT_ROLE, {"id": user_id})
    return row is not None and row["role"] in MODERATORS


async def require_moderator(request: web.Request, *scopes: str) -> UUID:
    """The moderator or admin on whose behalf the call is made; raises `ApiError` 401, 403 or 422."""
    user_id = require_user(request, *scopes)
    if not await is_moderator(context_of(request).database, user_id):
        raise forbidden()
    return user_id
