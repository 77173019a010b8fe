"""Traces reach a real OTLP/HTTP receiver: one request, its phases, its caller's trace, and none of its words."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.e2e.conftest import start_server
from tests.e2e.drawing import circle, picture, user

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
QUESTION = "Which shape is in this picture?"


@dataclass
class Collector:
    """Owns what has arrived; its HTTP server runs while the fixture does."""

    url: str
    bodies: list[bytes] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    told = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_request_is_a_trace(collector: Collector, tmp_path: Path) -> None:
    """Its span continues the caller's trace, has the usage, and its phases fill it without gaps."""
    server = start_server(log=tmp_path / "log", changes={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
    body = {"messages": [user(QUESTION, picture(circle("navy", size=233)))], "max_tokens": 6}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=120).json()
    httpx.post(f"{server.url}/v1/chat/completions", json=body | {"messages": []}, timeout=120)
    assert server.stop() == 0
    spans = collector.spans
    (span,) = [span for span in spans if span.name == "chat demo"]
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    attributes = {each.key: each.value for each in span.attributes}
    assert attributes["gen_ai.response.id"].string_value == answer["id"]
    assert attributes["gen_ai.usage.output_tokens"].int_value == answer["usage"]["completion_tokens"]
    assert attributes["periscope.images"].int_value == 1
    assert span.status.code == Status.STATUS_CODE_UNSET
    phases = sorted((each for each in spans if each is not span), key=lambda each: each.start_time_unix_nano)
    assert {each.parent_span_id for each in phases} == {span.span_id}
    assert {"caption", "prefill", "decode"} <= {each.name for each in phases}
    ends = [span.start_time_unix_nano, *(each.end_time_unix_nano for each in phases)]
    assert ends == [*(each.start_time_unix_nano for each in phases), span.end_time_unix_nano]
    assert abs(span.end_time_unix_nano / 1e9 - time.time()) < 600
    sent = b"".join(collector.bodies)
    assert QUESTION.encode() not in sent
    assert answer["choices"][0]["message"]["content"].encode() not in sent


def test_a_collector_that_never_answers_holds_up_nothing(tmp_path: Path) -> None:
    """Neither the answer nor the end of the server waits for it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        patient = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_TIMEOUT": "600"}
        server = start_server(log=tmp_path / "log", changes=patient)
        body = {"messages": [user("Hi")], "max_tokens": 2}
        assert httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120).status_code == 200
        assert server.stop() == 0  # waits for a minute at most
