"""Answers: JSON through msgspec, errors in the one shape."""

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from api.errors import ApiError

JSON = "application/json"
_encode = msgspec.json.Encoder().encode


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """The value as JSON."""
    return json_bytes(_encode(value), status, headers)


def json_bytes(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Ready JSON bytes."""
    return web.Response(body=body, status=status, headers=headers, content_type=JSON, charset="utf-8")


def error_response(error: ApiError) -> web.Response:
    """The error's JSON, status and headers."""
    return json_response(error.body(), error.status, error.headers)
