"""Spans are made from what is known of a request that has ended; a broken header of a client starts a trace anew."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from periscope.core import PhaseSpan, RequestPhase, RequestTrace, TraceParent
from periscope.events import RequestEnded
from periscope.telemetry.tracing import Tracing

PHASES = (PhaseSpan(RequestPhase.STARTING, 1.0, 1.5), PhaseSpan(RequestPhase.QUEUED, 1.5, 2.0))


@pytest.mark.parametrize("header", ["", "00-zz-1-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "\x00\xff" * 200])
def test_a_broken_header_starts_a_trace_anew(header: str) -> None:
    """It is the client's; whatever stands in it costs no request and no event."""

    async def test() -> None:
        exporter = InMemorySpanExporter()
        tracing = Tracing("1", exporter=exporter)
        trace = RequestTrace("m", phases=PHASES, error="EngineClosed", parent=TraceParent(header, header))
        tracing.take(RequestEnded("r", "failed", trace))
        await tracing.close()
        await tracing.close()
        starting, queue, request = exporter.get_finished_spans()
        assert [starting.name, queue.name, request.name] == ["starting", "queue", "chat m"]
        assert request.parent is None
        assert request.status.status_code.name == "ERROR"
        assert request.attributes is not None
        assert request.attributes["error.type"] == "EngineClosed"

    asyncio.run(test())


def test_a_caller_that_does_not_sample_gets_no_spans() -> None:
    """The flag in its header holds for the whole trace."""

    async def test() -> None:
        exporter = InMemorySpanExporter()
        tracing = Tracing("1", exporter=exporter)
        parent = TraceParent("00-" + "1" * 32 + "-" + "2" * 16 + "-00")
        tracing.take(RequestEnded("r", "finished", RequestTrace("m", phases=PHASES, parent=parent)))
        await tracing.close()
        assert exporter.get_finished_spans() == ()

    asyncio.run(test())
