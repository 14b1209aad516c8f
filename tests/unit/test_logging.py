import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from fanline.errors import ConfigurationError
from fanline.logging import REDACTED, configure_logging, get_logger
from fanline.tracing import span_from_traceparent

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    handlers, level, hook = logging.root.handlers[:], logging.root.level, sys.excepthook
    stream = io.StringIO()
    configure_logging("timelines", level="info", stream=stream)
    yield stream
    structlog.reset_defaults()
    logging.captureWarnings(False)
    logging.root.handlers[:], sys.excepthook = handlers, hook
    logging.root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_the_fixed_keys(output: io.StringIO) -> None:
    get_logger("sinks.redis").info("batch written", items=12)
    (line,) = lines(output)
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo == UTC
    assert line == {
        "level": "info",
        "component": "timelines",
        "logger": "sinks.redis",
        "event": "batch written",
        "items": 12,
    }


def test_lines_of_the_standard_library_have_the_same_shape(output: io.StringIO) -> None:
    logging.getLogger("urllib3.pool").warning("retry %d of %s", 2, "postgresql://me:hunter2@db/app")
    (line,) = lines(output)
    assert line["component"] == "timelines"
    assert line["logger"] == "urllib3.pool"
    assert line["level"] == "warning"
    assert line["event"] == f"retry 2 of postgresql://me:{REDACTED}@db/app"


def test_lines_below_the_level_are_not_written(output: io.StringIO) -> None:
    get_logger("x").debug("detail")
    logging.getLogger("x").debug("detail")
    assert output.getvalue() == ""


def test_a_line_inside_a_span_carries_its_trace(output: io.StringIO) -> None:
    with span_from_traceparent("work", TRACEPARENT) as span:
        get_logger("x").info("inside")
        expected = f"{span.get_span_context().span_id:016x}"
    get_logger("x").info("outside")
    inside, outside = lines(output)
    assert inside["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert inside["span_id"] == expected
    assert "trace_id" not in outside


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("password", "hunter2"),
        ("database_password", "hunter2"),
        ("clientSecret", "hunter2"),
        ("access_token", "hunter2"),
        ("Authorization", "Bearer hunter2"),
        ("headers", {"Cookie": "hunter2", "nested": [{"refresh_token": "hunter2"}]}),
        ("value", SecretStr("hunter2")),
        ("url", "redis://:hunter2@host:6379/0"),
        ("url", "postgresql://me:hunter2@host/app"),
        ("note", "sent Authorization: Bearer hunter2"),
        ("arguments", ("a", {"secret": "hunter2"})),
    ],
)
def test_a_secret_is_never_written(output: io.StringIO, key: str, value: object) -> None:
    get_logger("x").info("called", **{key: value})
    assert "hunter2" not in output.getvalue()
    assert REDACTED in output.getvalue()


def test_a_key_that_only_contains_the_letters_of_a_secret_word_stays(output: io.StringIO) -> None:
    get_logger("x").info("called", tokenized=7, secretary="Ada", url="http://host:80/a@b")
    (line,) = lines(output)
    assert (line["tokenized"], line["secretary"], line["url"]) == (7, "Ada", "http://host:80/a@b")


def test_an_exception_is_one_line_with_its_traceback(output: io.StringIO) -> None:
    try:
        raise ValueError("postgresql://me:hunter2@host/app is down")
    except ValueError:
        get_logger("x").exception("failed")
    (line,) = lines(output)
    assert line["level"] == "error"
    assert "ValueError: postgresql://me:[redacted]@host/app is down" in line["exception"]


def test_an_uncaught_exception_is_logged_not_printed(output: io.StringIO) -> None:
    error = RuntimeError("boom")
    sys.excepthook(RuntimeError, error, None)
    (line,) = lines(output)
    assert line["event"] == "uncaught exception"
    assert "RuntimeError: boom" in line["exception"]


def test_python_warnings_become_lines(output: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("soon gone", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    (line,) = lines(output)
    assert line["logger"] == "py.warnings"
    assert "soon gone" in line["event"]


def test_values_that_json_does_not_know_are_written_as_text(output: io.StringIO) -> None:
    get_logger("x").info("called", when=datetime(2026, 1, 2, tzinfo=UTC), raw=b"\xff")
    (line,) = lines(output)
    assert line["when"] == "2026-01-02 00:00:00+00:00"
    assert line["raw"] == "b'\\xff'"


def test_an_unknown_level_is_refused_with_the_ones_that_exist() -> None:
    with pytest.raises(ConfigurationError, match="must be one of debug, info, warning, error"):
        configure_logging("api", level="loud")
