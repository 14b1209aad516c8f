"""What this server is, and the small true answers that every client asks for when it signs in."""

import time

from aiohttp import web

from api.accounts import MAX_DISPLAY_NAME, MAX_FIELD, MAX_FIELDS, MAX_NOTE
from api.auth.principal import require_user
from api.context import Context, context_of
from api.engagement import MAX_PINNED
from api.errors import not_found
from api.poll_rows import MAX_OPTION_CHARACTERS, MAX_OPTIONS, MAX_SECONDS, MIN_SECONDS
from api.push import server_key
from api.responses import json_response
from api.series import SERIES
from api.status_texts import MAX_CHARACTERS
from readmodels.aggregates import DAY, floor_to
from readmodels.entities import Entity
from readmodels.entity_queries import ACCOUNTS_BY_ID

routes = web.RouteTableDef()

# Clients read the first number as the version of Mastodon's API that they may rely on.
VERSION = "4.3.0 (compatible; Fanline 0.1.0)"
SOURCE_URL = "https://github.com/fanline/fanline"
CHARACTERS_PER_URL = 23

# Counting reads whole tables, so that the numbers are a minute old at most.
STATISTICS_SECONDS = 60.0
STATISTICS = """
SELECT (SELECT count(*) FROM users WHERE suspended_at IS NULL) AS user_count,
       (SELECT count(*) FROM posts WHERE repost_of_id IS NULL) AS status_count
"""
ACTIVE_DAYS = 28


@routes.get("/api/v2/instance")
async def instance(request: web.Request) -> web.Response:
    """The server, as clients of Mastodon 4 ask for it."""
    context = context_of(request)
    today = floor_to(int(time.time()), DAY)
    active = await request.app[SERIES].active(range(today - (ACTIVE_DAYS - 1) * DAY, today + 1, DAY))
    return json_response(
        {
            "domain": context.domain,
            "title": context.settings.instance_title,
            "version": VERSION,
            "source_url": SOURCE_URL,
            "description": context.settings.instance_description,
            "usage": {"users": {"active_month": active}},
            "thumbnail": {"url": f"{context.public_url}/headers/original/missing.png"},
            "icon": [],
            "languages": ["en"],
            "configuration": _configuration(context) | {"vapid": {"public_key": await server_key(context)}},
            "registrations": {
                "enabled": context.settings.registrations_open,
                "approval_required": False,
                "message": None,
                "url": None,
            },
            "api_versions": {"mastodon": 2},
            "contact": {"email": context.settings.contact_email, "account": None},
            "rules": [],
        }
    )


@routes.get("/api/v1/instance")
async def instance_v1(request: web.Request) -> web.Response:
    """The server, as older clients ask for it; `uri` is host and port."""
    context = context_of(request)
    counted = await context.kept("statistics", STATISTICS_SECONDS, lambda: context.database.row(STATISTICS))
    return json_response(
        {
            "uri": context.domain,
            "title": context.settings.instance_title,
            "short_description": context.settings.instance_description,
            "description": context.settings.instance_description,
            "email": context.settings.contact_email,
            "version": VERSION,
            "urls": {"streaming_api": streaming_url(context)},
            "stats": {**counted, "domain_count": 0},
            "thumbnail": f"{context.public_url}/headers/original/missing.png",
            "languages": ["en"],
            "registrations": context.settings.registrations_open,
            "approval_required": False,
            "invites_enabled": False,
            "configuration": _configuration(context),
            "contact_account": None,
            "rules": [],
        }
    )


@routes.get("/api/v1/preferences")
async def preferences(request: web.Request) -> web.Response:
    """Defaults of the caller's posts and of what they read."""
    user_id = require_user(request, "read:accounts")
    row = await context_of(request).database.row(ACCOUNTS_BY_ID, {"ids": [user_id]})
    if row is None:
        raise not_found()
    return json_response(
        {
            "posting:default:visibility": row["default_visibility"],
            "posting:default:sensitive": row["default_sensitive"],
            "posting:default:language": row["default_language"],
            "reading:expand:media": "default",
            "reading:expand:spoilers": False,
        }
    )


@routes.get("/api/v1/custom_emojis")
@routes.get("/api/v1/instance/rules")
@routes.get("/api/v1/instance/peers")
async def nothing_public(_request: web.Request) -> web.Response:
    """There are none here: no custom emojis, no rules, no other servers."""
    return json_response([])


@routes.get("/api/v1/announcements")
@routes.get("/api/v1/domain_blocks")
@routes.get("/api/v1/endorsements")
@routes.get("/api/v1/featured_tags")
@routes.get("/api/v1/scheduled_statuses")
async def nothing_of_mine(request: web.Request) -> web.Response:
    """What this server does not have: announcements, other servers to block, things featured, things scheduled."""
    require_user(request)
    return json_response([])


@routes.get("/api/v1/lists")
async def lists(request: web.Request) -> web.Response:
    """No list can be made yet, so there is none."""
    require_user(request, "read:lists")
    return json_response([])


def streaming_url(context: Context) -> str:
    """Where streams are served: the API's own host."""
    return context.public_url.replace("http", "ws", 1)


def _configuration(context: Context) -> Entity:
    return {
        "urls": {
            "streaming": streaming_url(context),
            "status": None,
            "about": None,
            "privacy_policy": None,
            "terms_of_service": None,
        },
        "accounts": {
            "max_featured_tags": 0,
            "max_pinned_statuses": MAX_PINNED,
            "max_display_name_length": MAX_DISPLAY_NAME,
            "max_note_length": MAX_NOTE,
            "max_profile_fields": MAX_FIELDS,
            "profile_field_name_limit": MAX_FIELD,
            "profile_field_value_limit": MAX_FIELD,
        },
        "statuses": {
            "max_characters": MAX_CHARACTERS,
            "max_media_attachments": 0,
            "characters_reserved_per_url": CHARACTERS_PER_URL,
        },
        "media_attachments": {"supported_mime_types": [], "description_limit": 0},
        "polls": {
            "max_options": MAX_OPTIONS,
            "max_characters_per_option": MAX_OPTION_CHARACTERS,
            "min_expiration": MIN_SECONDS,
            "max_expiration": MAX_SECONDS,
        },
        "translation": {"enabled": False},
        "limited_federation": True,
    }
