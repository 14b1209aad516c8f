"""Request parameters as typed structs: JSON, urlencoded and multipart bodies, and query strings.

Forms use Rails' names: `key[]=a&key[]=b` is an array, `source[privacy]=public` an object. A body is read up to the
application's limit (1 MiB); more is a 413.
"""

import re
from collections.abc import Iterable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web

from api.errors import ApiError, bad_request, unprocessable

MAX_PARAMETERS = 1_000
MAX_DEPTH = 4

_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_SUBSCRIPT = re.compile(r"\[([^\[\]]*)\]")

Parameters = dict[str, Any]
T = TypeVar("T", bound=msgspec.Struct)


async def read_body(request: web.Request, model: type[T], *, with_query: bool = True) -> T:
    """The request's parameters as `model`; those of the body win over those of the query string.

    `with_query=False` keeps secrets out of addresses, which get logged. Raises `ApiError` 400, 413, 415 or 422.
    """
    parameters: Parameters = {}
    if with_query and request.query_string:
        parameters.update(query_parameters(request))
    parameters.update(await _body_parameters(request))
    return to_struct(parameters, model)


def read_query(request: web.Request, model: type[T]) -> T:
    """The query string as `model`; raises `ApiError` 400 or 422."""
    return to_struct(query_parameters(request) if request.query_string else {}, model)


def query_parameters(request: web.Request) -> Parameters:
    """The query string's parameters, arrays and objects built."""
    return nest(_pairs(request.rel_url.raw_query_string))


def to_struct(parameters: Parameters, model: type[T]) -> T:
    """Check types and limits; unknown parameters are ignored, as clients send those of newer servers."""
    _refuse_nul(parameters)
    try:
        return msgspec.convert(parameters, model, strict=False)
    except msgspec.ValidationError as error:
        raise unprocessable(f"Validation failed: {error}") from error


async def _body_parameters(request: web.Request) -> Parameters:
    if not request.can_read_body:
        return {}
    kind = request.content_type
    if kind == "multipart/form-data":
        return nest(await _multipart_pairs(request))
    body = await request.read()
    if not body:
        return {}
    if kind == "application/json":
        return _json_object(body)
    if kind in ("application/x-www-form-urlencoded", "application/octet-stream"):
        # octet-stream is aiohttp's name for a missing Content-Type.
        try:
            return nest(_pairs(body.decode()))
        except UnicodeDecodeError as error:
            raise bad_request("The body is not valid UTF-8") from error
    raise ApiError(415, f"A body of type {kind} is not supported; use JSON, urlencoded or multipart")


def _json_object(body: bytes) -> Parameters:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"The body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise bad_request("The body must be a JSON object")
    # Some clients keep the form's spelling in JSON.
    return {name.removesuffix("[]"): item for name, item in value.items()}


def _pairs(encoded: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(encoded, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError as error:
        raise bad_request("A parameter is not valid UTF-8") from error
    except ValueError as error:
        raise bad_request(f"More than {MAX_PARAMETERS} parameters") from error


async def _multipart_pairs(request: web.Request) -> list[tuple[str, str]]:
    try:
        form = await request.post()
    except UnicodeDecodeError as error:
        raise bad_request("The body is not valid UTF-8") from error
    except (ValueError, AssertionError, LookupError, EOFError) as error:
        raise bad_request("The multipart body cannot be read") from error
    if len(form) > MAX_PARAMETERS:
        raise bad_request(f"More than {MAX_PARAMETERS} parameters")
    pairs = []
    for name, value in form.items():
        if isinstance(value, web.FileField):
            raise unprocessable(f"Validation failed: {name}: files cannot be uploaded here")
        pairs.append((name, value if isinstance(value, str) else bytes(value).decode()))
    return pairs


def nest(pairs: Iterable[tuple[str, str]]) -> Parameters:
    """Arrays and objects from form names; a plain name given twice keeps its last value."""
    parameters: Parameters = {}
    for name, value in pairs:
        named = _NAME.fullmatch(name)
        if named is None:
            continue
        path = [named[1], *_SUBSCRIPT.findall(named[2])]
        if len(path) > MAX_DEPTH:
            raise bad_request(f"The parameter {name[:100]} is nested too deeply")
        _put(parameters, path, value, name)
    return parameters


def _put(target: Parameters, path: list[str], value: str, name: str) -> None:
    for position, key in enumerate(path):
        rest = path[position + 1 :]
        if not rest:
            target[key] = value
            return
        if rest == [""]:
            items = target.setdefault(key, [])
            if not isinstance(items, list):
                raise bad_request(f"The parameter {name[:100]} is both an array and something else")
            items.append(value)
            return
        if rest[0] == "":
            _put_into_list(target.setdefault(key, []), rest[1:], value, name)
            return
        inner = target.setdefault(key, {})
        if not isinstance(inner, dict):
            raise bad_request(f"The parameter {name[:100]} is both an object and something else")
        target = inner


def _put_into_list(items: object, path: list[str], value: str, name: str) -> None:
    """`key[][a]=1&key[][b]=2&key[][a]=3` are two objects: a name that is there already begins the next one."""
    if not isinstance(items, list):
        raise bad_request(f"The parameter {name[:100]} is both an array and something else")
    if not items or not isinstance(items[-1], dict) or (path[0] in items[-1] and path[-1] != ""):
        items.append({})
    _put(items[-1], path, value, name)


def _refuse_nul(value: object) -> None:
    """Postgres has no NUL in text: refuse it here with a sentence instead of there with an exception."""
    if isinstance(value, str):
        if "\x00" in value:
            raise bad_request("A parameter contains a NUL character")
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_nul(key)
            _refuse_nul(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_nul(item)
