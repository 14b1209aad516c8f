"""Mastodon's Account and Status entities from database rows: the one encoding that every reader shares.

The rows come from `readmodels/entity_queries.py`. Counts and viewer flags change far more often than the rest, so they
are entities of their own (`account_counts`, `status_counts`, `status_flags`) that a reader merges in.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fanline.content import clean, hashtag_url, profile_url, to_html

Row = Mapping[str, Any]
Entity = dict[str, Any]

NO_FLAGS: Entity = {"favourited": False, "reblogged": False, "bookmarked": False, "muted": False, "pinned": False}


def timestamp(moment: datetime) -> str:
    """A time as Mastodon writes it: UTC, milliseconds, `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def account_entity(row: Row, public_url: str) -> Entity:
    """The Account without `followers_count`, `following_count`, `statuses_count` and `last_status_at`.

    `row` is one of `ACCOUNTS_BY_ID`.
    """
    username = row["username"]
    url = profile_url(public_url, username)
    avatar = media_url(public_url, row["avatar_media_id"], "avatars/original/missing.png")
    header = media_url(public_url, row["header_media_id"], "headers/original/missing.png")
    entity: Entity = {
        "id": str(row["id"]),
        "username": username,
        "acct": username,
        "display_name": row["display_name"],
        "locked": row["locked"],
        "bot": row["bot"],
        "discoverable": row["discoverable"],
        "indexable": row["indexable"],
        "group": False,
        "created_at": timestamp(row["created_at"]),
        "note": to_html(row["note"], public_url, {}),
        "url": url,
        "uri": url,
        "avatar": avatar,
        "avatar_static": avatar,
        "header": header,
        "header_static": header,
        "hide_collections": False,
        "noindex": not row["indexable"],
        "emojis": [],
        "roles": [],
        "fields": [
            {"name": field["name"], "value": field_html(field["value"], public_url), "verified_at": None}
            for field in row["fields"] or ()
        ],
    }
    if row["suspended_at"] is not None:
        entity["suspended"] = True
    if row["silenced_at"] is not None:
        entity["limited"] = True
    return entity


def account_counts(row: Row) -> Entity:
    """The Account's counts; `row` is one of `ACCOUNT_COUNTS_BY_ID`."""
    last = row["last_status_at"]
    return {
        "followers_count": row["followers_count"],
        "following_count": row["following_count"],
        "statuses_count": row["statuses_count"],
        "last_status_at": last.astimezone(UTC).date().isoformat() if last is not None else None,
    }


def account_source(row: Row, follow_requests_count: int) -> Entity:
    """The `source` of one's own Account: what a client puts into its profile form."""
    return {
        "privacy": row["default_visibility"],
        "sensitive": row["default_sensitive"],
        "language": row["default_language"],
        "note": row["note"],
        "fields": [
            {"name": field["name"], "value": field["value"], "verified_at": None} for field in row["fields"] or ()
        ],
        "follow_requests_count": follow_requests_count,
        "discoverable": row["discoverable"],
        "indexable": row["indexable"],
        "hide_collections": False,
        "attribution_domains": [],
    }


def status_entity(row: Row, public_url: str) -> Entity:
    """The Status without `account`, `reblog`, its counts, the viewer's flags, and `poll` if it has one.

    `row` is one of `STATUSES_BY_ID`. A repost is a Status without content; the reader puts the original's entity into
    `reblog` and everybody's entity into `account`.
    """
    mentions: Sequence[Row] = row["mentions"]
    url = f"{profile_url(public_url, row['author_username'])}/{row['id']}"
    entity: Entity = {
        "id": str(row["id"]),
        "created_at": timestamp(row["created_at"]),
        "in_reply_to_id": _id(row["in_reply_to_id"]),
        "in_reply_to_account_id": _id(row["in_reply_to_account_id"]),
        "sensitive": row["sensitive"],
        "spoiler_text": row["spoiler_text"],
        "visibility": row["visibility"],
        "language": row["language"],
        "uri": url,
        "url": url,
        "content": to_html(row["text"], public_url, {m["username"].lower(): m["username"] for m in mentions}),
        "edited_at": timestamp(row["edited_at"]) if row["edited_at"] is not None else None,
        "application": (
            {"name": row["application_name"], "website": row["application_website"]}
            if row["application_name"] is not None
            else None
        ),
        "media_attachments": [],
        "mentions": [
            {
                "id": str(mention["id"]),
                "username": mention["username"],
                "acct": mention["username"],
                "url": profile_url(public_url, mention["username"]),
            }
            for mention in mentions
        ],
        "tags": [{"name": name, "url": hashtag_url(public_url, name)} for name in row["hashtags"]],
        "emojis": [],
        "card": None,
    }
    # A poll's votes change all the time, so a reader merges it in (readmodels/polls.py).
    return entity if row["poll_id"] else entity | {"poll": None}


def status_counts(row: Row) -> Entity:
    """The Status's counts; `row` is one of `STATUS_COUNTS_BY_ID`."""
    return {
        "replies_count": row["replies_count"],
        "reblogs_count": row["reblogs_count"],
        "favourites_count": row["favourites_count"],
    }


def status_flags(row: Row) -> Entity:
    """What the viewer has done with the Status; `row` is one of `STATUS_FLAGS_BY_ID`."""
    return {name: row[name] for name in NO_FLAGS}


def media_url(public_url: str, media_id: object, missing: str) -> str:
    """The address of an uploaded file, or of the picture that stands for none."""
    return f"{public_url}/{missing}" if media_id is None else f"{public_url}/media/{media_id}"


def field_html(value: str, public_url: str) -> str:
    """A profile field's value as HTML: links and hashtags, no paragraphs."""
    html = to_html(clean(value).replace("\n", " "), public_url, {})
    return html.removeprefix("<p>").removesuffix("</p>")


def _id(value: object) -> str | None:
    return None if value is None else str(value)
