"""Tracing: one trace per request for an OpenTelemetry collector, made from what is known when the request has ended.

A request is a span of OpenTelemetry's GenAI conventions; its phases are the child spans, with the times that they had.
The SDK (the extra `otel`) sends spans from a thread of its own. It takes the collector, headers, sampling and resource
from the `OTEL_*` environment variables, and is imported only when tracing is on.

Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans
"""

from __future__ import annotations

import asyncio
import threading
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from periscope.core import RequestPhase
from periscope.events import RequestEnded

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

    from periscope.core import RequestTrace, VisionUsage
    from periscope.events import Event

_NS: Final = 1_000_000_000
#: Child spans that are not called as their phase.
_NAMES: Final = {RequestPhase.CAPTIONING: "caption", RequestPhase.QUEUED: "queue"}
#: How long the end of the server waits for a collector that takes nothing.
CLOSE_S: Final = 1.0


def is_installed() -> bool:
    """Whether the extra `otel` is there; its modules are not imported, only the packages around them."""
    try:
        return all(map(find_spec, ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")))
    except ModuleNotFoundError:
        return False


class Tracing:
    """Owns the provider of spans and, through it, the thread that sends them. `take` runs on the event loop.

    Args:
        exporter: sends spans; None = by OTLP over HTTP, as the `OTEL_EXPORTER_OTLP_*` variables say.
    """

    def __init__(self, version: str, *, exporter: SpanExporter | None = None) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        # The detectors of the environment (OTEL_SERVICE_NAME and the like) overrule what is given here.
        resource = Resource.create({"service.name": "periscope", "service.version": version})
        self._is_closed = False
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("periscope", version)

    def take(self, event: Event) -> None:
        """Hand the spans of a request that has ended to the sending thread; drops them if that is far behind."""
        if isinstance(event, RequestEnded) and event.trace.phases:
            self._record(event.id, event.trace)

    async def close(self) -> None:
        """Idempotent: send what is left, as far as the collector takes it within `CLOSE_S`.

        The SDK waits for longer, which the end of the process does not: it does so on a daemon thread.
        """
        if not self._is_closed:
            self._is_closed = True
            closing = threading.Thread(target=self._provider.shutdown, name="periscope-traces", daemon=True)
            closing.start()
            await asyncio.to_thread(closing.join, CLOSE_S)

    def _record(self, request_id: str, trace: RequestTrace) -> None:
        from opentelemetry import trace as otel
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        offset_s = time.time() - asyncio.get_running_loop().time()  # from the loop's clock to Unix time
        headers = (
            {}
            if trace.parent is None
            else {
                "traceparent": trace.parent.traceparent,
                "tracestate": trace.parent.tracestate,
            }
        )
        span = self._tracer.start_span(
            f"{trace.operation} {trace.model}",
            context=TraceContextTextMapPropagator().extract(headers),
            kind=otel.SpanKind.SERVER,
            attributes=_attributes(request_id, trace),
            start_time=_ns(trace.phases[0].began_at + offset_s),
        )
        if trace.error is not None:
            span.set_status(otel.StatusCode.ERROR)
        context = otel.set_span_in_context(span)
        for phase in trace.phases:
            child = self._tracer.start_span(
                _NAMES.get(phase.phase, phase.phase.value), context=context, start_time=_ns(phase.began_at + offset_s)
            )
            child.end(_ns(phase.ended_at + offset_s))
        span.end(_ns(trace.phases[-1].ended_at + offset_s))


def _ns(seconds: float) -> int:
    return round(seconds * _NS)


def _attributes(request_id: str, trace: RequestTrace) -> dict[str, Any]:
    """What the conventions name, and our own; no text of the request or its answer."""
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": trace.operation.value,
        "gen_ai.provider.name": "periscope",
        "gen_ai.request.model": trace.model,
        "gen_ai.response.id": request_id,
        "periscope.images": trace.num_images,
    }
    if trace.num_choices != 1:
        attributes["gen_ai.request.choice.count"] = trace.num_choices
    if trace.error is not None:
        attributes["error.type"] = trace.error
    if trace.usage is not None:
        attributes |= {
            "gen_ai.usage.input_tokens": trace.usage.num_prompt_tokens,
            "gen_ai.usage.output_tokens": trace.usage.num_completion_tokens,
            "gen_ai.usage.cache_read.input_tokens": trace.usage.num_cached_tokens,
            "gen_ai.response.finish_reasons": tuple(reason.value for reason in trace.finish_reasons),
        }
    if trace.vision is not None:
        attributes |= _caption_attributes(trace.vision)
    return attributes


def _caption_attributes(vision: VisionUsage) -> dict[str, Any]:
    return {
        "periscope.caption.cache_hits": vision.num_cache_hits,
        "periscope.caption.failed": vision.num_failed,
        "periscope.caption.output_tokens": vision.num_caption_tokens,
    }
