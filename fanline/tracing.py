"""OpenTelemetry traces: one trace follows a write from the REST request to the timelines that it reaches.

The context travels as a W3C `traceparent`: the API takes it from the request or starts a trace, stores it in the
`traceparent` column of the post and of the outbox row, and the dataflows carry on from there. Spans are exported only
when FANLINE_OTLP_ENDPOINT is set; without it traces are never sampled, ids still reach the logs, and a span costs
a few microseconds.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fanline.settings import get_settings

SAMPLED_SUFFIX = "-01"

_PROPAGATOR = TraceContextTextMapPropagator()
_provider: TracerProvider | None = None
# The provider's tracer, as making one costs more than a span.
_known: tuple[TracerProvider | None, trace.Tracer] | None = None


def configure_tracing(component: str) -> TracerProvider:
    """Start tracing in this process as the service `fanline-<component>`; the provider is returned for tests."""
    global _provider
    settings = get_settings()
    resource = Resource.create({SERVICE_NAME: f"fanline-{component}"})
    if settings.otlp_endpoint:
        # Imported here: the exporter costs 50 ms of start-up that processes without tracing need not pay.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        _provider = TracerProvider(
            resource=resource,
            sampler=ParentBased(TraceIdRatioBased(settings.trace_sample_ratio)),
        )
        exporter = OTLPSpanExporter(endpoint=traces_url(settings.otlp_endpoint))
        _provider.add_span_processor(BatchSpanProcessor(exporter))
    else:
        _provider = TracerProvider(resource=resource, sampler=ALWAYS_OFF)
    return _provider


def shut_down_tracing() -> None:
    """Export what is still buffered and stop; call it when the process ends."""
    global _provider
    if _provider is not None:
        _provider.shutdown()
        _provider = None


def traces_url(endpoint: str) -> str:
    """The URL that spans are posted to: `endpoint` as it is when it names /v1/traces, else with that path added."""
    base = endpoint.rstrip("/")
    return base if base.endswith("/v1/traces") else f"{base}/v1/traces"


def current_traceparent() -> str | None:
    """The W3C `traceparent` of the current span, or None outside of any trace."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return format_traceparent(context)


def format_traceparent(context: SpanContext) -> str:
    """The W3C `traceparent` that names a span."""
    ids = f"{trace.format_trace_id(context.trace_id)}-{trace.format_span_id(context.span_id)}"
    return f"00-{ids}-{int(context.trace_flags) & TraceFlags.SAMPLED:02x}"


def parse_traceparent(traceparent: str | None) -> SpanContext | None:
    """The span that a `traceparent` names; None when there is none or it is malformed (it is then ignored)."""
    if not traceparent:
        return None
    context = _PROPAGATOR.extract({"traceparent": traceparent}, otel_context.Context())
    parent = trace.get_current_span(context).get_span_context()
    return parent if parent.is_valid else None


@contextmanager
def span(name: str, attributes: Mapping[str, Any] | None = None) -> Iterator[Span]:
    """Run the block inside a span that continues the current trace, or starts one."""
    with _tracer().start_as_current_span(name, attributes=attributes) as current:
        yield current


@contextmanager
def span_from_traceparent(
    name: str,
    traceparent: str | None,
    attributes: Mapping[str, Any] | None = None,
    kind: SpanKind = SpanKind.CONSUMER,
) -> Iterator[Span]:
    """Run the block inside a span of the trace that `traceparent` names; without a valid one a trace starts here."""
    parent = _parent_context(traceparent)
    with _tracer().start_as_current_span(name, parent, kind=kind, attributes=attributes) as current:
        yield current


def record_span(
    name: str,
    traceparent: str | None,
    start_ms: int,
    end_ms: int,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Record work that is over as a span of the trace that `traceparent` names; times are Unix milliseconds.

    For dataflows, whose work for one record is spread over batches. Does nothing for a trace that is not
    sampled, at the price of one comparison of strings.
    """
    if not traceparent or not traceparent.endswith(SAMPLED_SUFFIX):
        return
    parent = _parent_context(traceparent)
    finished = _tracer().start_span(
        name, parent, kind=SpanKind.CONSUMER, attributes=attributes, start_time=start_ms * 1_000_000
    )
    finished.end(end_time=end_ms * 1_000_000)


def _parent_context(traceparent: str | None) -> otel_context.Context:
    parent = parse_traceparent(traceparent)
    if parent is None:
        return otel_context.Context()
    return trace.set_span_in_context(NonRecordingSpan(parent), otel_context.Context())


def _tracer() -> trace.Tracer:
    global _known
    if _known is None or _known[0] is not _provider:
        _known = (_provider, trace.get_tracer(__name__, tracer_provider=_provider))
    return _known[1]
