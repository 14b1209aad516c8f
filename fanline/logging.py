"""Structured logs: one JSON object a line on standard error, with the ids of the current trace and no secrets.

Every line has `timestamp` (ISO 8601, UTC), `level`, `component` (the process: api, timelines, ...), `logger` (the
module), `event` (a short constant text; what varies goes into further keys) and, inside a span, `trace_id` and
`span_id`. Standard output is left to what a command prints for its caller.
"""

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, TextIO, cast

import structlog
from opentelemetry import trace
from pydantic import SecretBytes, SecretStr
from structlog.typing import FilteringBoundLogger, Processor

from fanline.errors import ConfigurationError
from fanline.settings import get_settings

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
REDACTED = "[redacted]"

_SECRET_WORDS = frozenset(
    [
        "password",
        "passwd",
        "secret",
        "secrets",
        "token",
        "tokens",
        "authorization",
        "cookie",
        "credential",
        "credentials",
        "jwt",
        "dsn",
    ]
)
_KEY_PARTS = re.compile(r"[^a-zA-Z]+|(?<=[a-z])(?=[A-Z])")
_URL_PASSWORD = re.compile(r"(?<=://)([^\s:/@]*):([^\s@/]+)@")
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]+", re.IGNORECASE)
_EventDict = MutableMapping[str, Any]


def configure_logging(component: str, *, level: str | None = None, stream: TextIO | None = None) -> None:
    """Send the logs of this process, the standard library's included, to `stream` (standard error) as JSON lines.

    `level` is one of `LEVELS`; without it the setting FANLINE_LOG_LEVEL holds. Raises `ConfigurationError` for
    any other level. Calling it again replaces the earlier configuration.
    """
    name = (level or get_settings().log_level).lower()
    if name not in LEVELS:
        raise ConfigurationError(f"FANLINE_LOG_LEVEL is {name!r}; it must be one of {', '.join(LEVELS)}.")
    output = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _Component(component),
        add_trace_ids,
        structlog.processors.format_exc_info,
    ]
    render: list[Processor] = [redact, structlog.processors.JSONRenderer(serializer=_to_json)]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[name]),
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=LEVELS[name], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry `name` (the module's `__name__`); it may be made before `configure_logging`."""
    return cast(FilteringBoundLogger, structlog.get_logger(module=name))


def add_trace_ids(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    """Add the current span's `trace_id` and `span_id` as W3C hexadecimal, when there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


def redact(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    """Replace secrets: values under keys that name one, passwords in URLs, and credentials of HTTP headers."""
    return {key: _redacted(key, value) for key, value in event.items()}


def _redacted(key: object, value: object) -> object:
    if isinstance(value, SecretStr | SecretBytes) or _names_a_secret(key):
        return REDACTED
    if isinstance(value, str):
        return _BEARER.sub(rf"\1 {REDACTED}", _URL_PASSWORD.sub(rf"\1:{REDACTED}@", value))
    if isinstance(value, dict):
        return {inner: _redacted(inner, item) for inner, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(None, item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _redacted(None, str(value))


def _names_a_secret(key: object) -> bool:
    if not isinstance(key, str):
        return False
    return any(part.lower() in _SECRET_WORDS for part in _KEY_PARTS.split(key))


def _to_json(event: _EventDict, **_options: object) -> str:
    return json.dumps(event, ensure_ascii=False, default=str)


class _Component:
    """Adds the name of the process to each line, and the module's name under `logger`."""

    def __init__(self, component: str) -> None:
        self._component = component

    def __call__(self, _logger: object, _method: str, event: _EventDict) -> _EventDict:
        event["component"] = self._component
        # get_logger cannot bind `logger` itself: structlog's own parameter has that name.
        if (module := event.pop("module", None)) is not None:
            event["logger"] = module
        return event


def _log_uncaught(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
        return
    get_logger(__name__).error("uncaught exception", exc_info=(kind, error, where))
