"""The line of a request has the shape of every other line, and nothing of the query."""

import io
import json

from api.access_log import AccessLog
from fanline.logging import configure_logging, get_logger
from fanline.tracing import configure_tracing, shut_down_tracing, span_from_traceparent

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_line_has_the_fields_of_the_other_logs_and_its_trace() -> None:
    others, ours = io.StringIO(), io.StringIO()
    configure_logging("api", level="info", stream=others)
    configure_tracing("api")
    try:
        with span_from_traceparent("GET /", TRACEPARENT):
            get_logger("module").info("event")
            AccessLog(ours).write("GET", "/a", "/{x}", 200, 0.01234, "u")
    finally:
        shut_down_tracing()
    other, line = json.loads(others.getvalue()), json.loads(ours.getvalue())
    assert other.keys() <= line.keys()
    assert (line["trace_id"], line["component"]) == (other["trace_id"], other["component"])
    assert line["trace_id"] == TRACEPARENT.split("-")[1]
    assert line["timestamp"][-1] == other["timestamp"][-1] == "Z"
    assert (line["method"], line["route"], line["status"], line["ms"]) == ("GET", "/{x}", 200, 12.34)


def test_nothing_is_wanted_above_level_info() -> None:
    configure_logging("api", level="warning", stream=io.StringIO())
    assert not AccessLog().wanted
    configure_logging("api", level="info", stream=io.StringIO())
    assert AccessLog().wanted
