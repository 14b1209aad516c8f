import http.server
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.trace import SpanKind

from fanline import tracing
from fanline.settings import get_settings

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"


class Collector:
    """An OTLP/HTTP collector that keeps the spans posted to it."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.services: set[str] = set()
        self.spans: dict[str, Span] = {}
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                collector.paths.append(self.path)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    names = {item.key: item.value.string_value for item in resource.resource.attributes}
                    collector.services.add(names["service.name"])
                    for scope in resource.scope_spans:
                        collector.spans.update({span.name: span for span in scope.spans})
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("FANLINE_OTLP_ENDPOINT", collector.endpoint)
    get_settings.cache_clear()
    tracing.configure_tracing("timelines")
    yield collector
    tracing.shut_down_tracing()
    collector.server.shutdown()
    collector.server.server_close()
    get_settings.cache_clear()


@pytest.fixture
def off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("FANLINE_OTLP_ENDPOINT", raising=False)
    get_settings.cache_clear()
    tracing.configure_tracing("timelines")
    yield
    tracing.shut_down_tracing()
    get_settings.cache_clear()


def test_there_is_no_traceparent_outside_of_a_trace() -> None:
    assert tracing.current_traceparent() is None


def test_a_trace_that_starts_here_has_ids_but_is_not_sampled_without_an_endpoint(off: None) -> None:
    with tracing.span("POST /api/v1/statuses"):
        traceparent = tracing.current_traceparent()
    assert traceparent is not None
    version, trace_id, span_id, flags = traceparent.split("-")
    assert (version, len(trace_id), len(span_id), flags) == ("00", 32, 16, "00")
    assert int(trace_id, 16) > 0


def test_a_caller_cannot_turn_sampling_on_where_it_is_off(off: None) -> None:
    with tracing.span_from_traceparent("request", SAMPLED):
        assert (tracing.current_traceparent() or "").endswith("-00")


@pytest.mark.parametrize("malformed", ["", "x", f"00-{TRACE}-{PARENT}", f"00-{'0' * 32}-{PARENT}-01", None, "é" * 55])
def test_a_malformed_traceparent_starts_a_new_trace(off: None, malformed: str | None) -> None:
    assert tracing.parse_traceparent(malformed) is None
    with tracing.span_from_traceparent("request", malformed):
        assert TRACE not in (tracing.current_traceparent() or "")


def test_the_same_ids_come_out_of_a_traceparent_and_go_into_it() -> None:
    context = tracing.parse_traceparent(SAMPLED)
    assert context is not None
    assert tracing.format_traceparent(context) == SAMPLED


def test_a_trace_crosses_from_the_request_to_the_flow(collector: Collector) -> None:
    with tracing.span_from_traceparent("POST /api/v1/statuses", SAMPLED, kind=SpanKind.SERVER):
        stored = tracing.current_traceparent()
    tracing.record_span("timelines.deliver", stored, 1_000, 1_012, {"post_id": "7", "followers": 3})
    tracing.shut_down_tracing()
    request, delivery = collector.spans["POST /api/v1/statuses"], collector.spans["timelines.deliver"]
    assert request.trace_id.hex() == delivery.trace_id.hex() == TRACE
    assert request.parent_span_id.hex() == PARENT
    assert delivery.parent_span_id == request.span_id
    assert delivery.end_time_unix_nano - delivery.start_time_unix_nano == 12_000_000
    assert {item.key for item in delivery.attributes} == {"post_id", "followers"}
    assert collector.services == {"fanline-timelines"}
    assert set(collector.paths) == {"/v1/traces"}


def test_an_unsampled_trace_is_not_exported(collector: Collector) -> None:
    with tracing.span_from_traceparent("request", UNSAMPLED):
        pass
    tracing.record_span("delivery", UNSAMPLED, 1, 2)
    tracing.record_span("delivery", None, 1, 2)
    tracing.shut_down_tracing()
    assert collector.spans == {}


def test_the_endpoint_may_name_the_path_of_traces_or_leave_it_out() -> None:
    assert tracing.traces_url("http://c:4318") == "http://c:4318/v1/traces"
    assert tracing.traces_url("http://c:4318/") == "http://c:4318/v1/traces"
    assert tracing.traces_url("http://c/otel/v1/traces") == "http://c/otel/v1/traces"
