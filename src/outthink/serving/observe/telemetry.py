"""OpenTelemetry traces: a span a request, a span a sample, in the GenAI semantic conventions.

Knows: which attribute holds what. Prompts and answers are never exported. The SDK is imported only where a collector is
named. Attribute names are written out: the conventions' package calls them unstable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from outthink.core.plugins import need_extra
from outthink.http.errors import masked_url
from outthink.serving.protocols import AdmittedRequest, RequestRecord
from outthink.serving.watch import Watcher

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span


_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/responses": "chat",
    "/v1/embeddings": "embeddings",
}
_MOST = 10_000
"""Requests that are followed at once."""
_NANOSECONDS = 1_000_000_000


class Telemetry(Watcher):
    """A watcher that makes spans.

    Args:
        provider: of tracers; it exports what has ended by itself, in a thread.

    `close` it when the proxy has stopped.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("outthink")
        self._propagator = TraceContextTextMapPropagator()
        self._spans: dict[str, tuple[Span, dict[int, Span]]] = {}

    def began(self, request: AdmittedRequest) -> None:
        """Open the request's span, below the client's where it has one."""
        from opentelemetry import trace

        if len(self._spans) >= _MOST:
            return
        operation = _OPERATIONS.get(request.endpoint, "chat")
        parent = self._propagator.extract({"traceparent": request.traceparent} if request.traceparent else {})
        span = self._tracer.start_span(
            f"{operation} {request.model[:80]}",
            context=parent,
            kind=trace.SpanKind.SERVER,
            start_time=int(request.started * _NANOSECONDS),
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "outthink",
                "gen_ai.request.model": request.model[:200],
                "gen_ai.request.stream": request.stream,
                "url.path": request.endpoint,
                "outthink.request.id": request.id,
                "outthink.key.id": request.key_id,
                "outthink.strategy": request.strategy[:200],
            },
        )
        self._spans[request.id] = span, {}
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span))
        request.traceparent = carrier.get("traceparent", request.traceparent)

    def sampled(self, id: str, index: int, state: str, answer: str | None, tokens: int | None, backend: str) -> None:
        """Open or close a sample's span."""
        from opentelemetry import trace

        if id not in self._spans:
            return
        request, samples = self._spans[id]
        span = samples.get(index)
        if span is None:
            span = samples[index] = self._tracer.start_span(
                f"chat {backend}",
                context=trace.set_span_in_context(request),
                kind=trace.SpanKind.CLIENT,
                attributes={
                    "gen_ai.operation.name": "chat",
                    "gen_ai.request.model": backend,
                    "outthink.sample.index": index,
                },
            )
        if state == "started":
            return
        span.set_attribute("outthink.sample.state", state)
        if tokens is not None:
            span.set_attribute("gen_ai.usage.output_tokens", tokens)
        if state == "failed":
            span.set_status(trace.Status(trace.StatusCode.ERROR))
        span.end()

    def finished(self, record: RequestRecord) -> None:
        """Close the request's span, and what is left below it."""
        from opentelemetry import trace

        if record.id not in self._spans:
            return
        span, samples = self._spans.pop(record.id)
        for sample in samples.values():
            if sample.is_recording():
                sample.end()
        attributes = {
            "gen_ai.response.id": record.id,
            "gen_ai.response.model": record.backend_model,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": record.completion_tokens,
            "gen_ai.response.time_to_first_chunk": record.first_seconds,
            "http.response.status_code": record.status,
            "outthink.stopped": record.stopped,
            "outthink.samples": record.samples,
            "outthink.usage.cancelled_tokens": record.cancelled_tokens,
            "outthink.usage.tokens": record.tokens,
            "outthink.usage.usd": record.usd,
            "outthink.usage.joules": record.joules,
            "outthink.estimated": record.estimated,
        }
        span.set_attributes({name: value for name, value in attributes.items() if value is not None})
        if record.status >= 500 or record.stopped == "error":
            span.set_attribute("error.type", str(record.status))
            span.set_status(trace.Status(trace.StatusCode.ERROR, (record.error or "")[:200]))
        span.end(int((record.started + record.seconds) * _NANOSECONDS))

    def close(self) -> None:
        """Export what has ended, and end the thread that does it."""
        self._provider.shutdown()


def provider_for(endpoint: str, service: str) -> TracerProvider:
    """A provider that exports to a collector (OTLP over HTTP) in the background. Raises BadInput."""
    need_extra("telemetry", "telemetry.endpoint", masked_url(endpoint))
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    bare, mark, query = endpoint.partition("?")
    url = bare.rstrip("/").removesuffix("/v1/traces") + "/v1/traces" + mark + query
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=5)))
    return provider
