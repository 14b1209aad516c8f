"""A line a request, in the shape of `fanline/logging.py` and without its cost.

A line through structlog takes 100 us, a third of what the fastest read takes; these fields are known and hold no secret
(the path comes without its query), so they are encoded at once, in a tenth of that. Only at level info and below.
"""

import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

import msgspec
from opentelemetry import trace


class AccessLog:
    """Writes the lines."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._encode = msgspec.json.Encoder().encode

    @property
    def wanted(self) -> bool:
        """Whether lines of level info are logged at all."""
        return logging.getLogger().isEnabledFor(logging.INFO)

    def write(self, method: str, path: str, route: str, status: int, seconds: float, user_id: str | None) -> None:
        """Write the line of a request that was answered."""
        line: dict[str, object] = {
            "method": method,
            "path": path,
            "route": route,
            "status": status,
            "ms": round(seconds * 1_000, 2),
            "user_id": user_id,
            "event": "request",
            "level": "info",
            "timestamp": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "component": "api",
            "logger": "api.access",
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = trace.format_trace_id(span.trace_id)
            line["span_id"] = trace.format_span_id(span.span_id)
        (self._stream or sys.stderr).write(self._encode(line).decode() + "\n")
