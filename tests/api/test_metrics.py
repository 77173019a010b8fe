"""`GET /metrics`: behind the key, in the format that is asked for, and counted by route."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.api.driving import HELLO, FakeBackend, client_of, error_of, in_loop


@dataclass
class FakeMetrics:
    told: list[tuple[str, int, str | None, str | None]] = field(default_factory=list)

    def answered(self, *, route: str, status: int, error: str | None, model: str | None) -> None:
        self.told.append((route, status, error, model))

    def exposition(self, accept: str) -> tuple[str, bytes]:
        return f"text/plain; for={accept}", b"up 1\n"


def client_with(metrics: FakeMetrics | None, **settings: Any) -> httpx.AsyncClient:
    return client_of(FakeBackend(), metrics=metrics, **settings)


@in_loop
async def test_metrics_are_behind_the_key() -> None:
    """They tell who uses which model; Prometheus can send a key."""
    async with client_with(FakeMetrics(), api_key="secret") as client:
        assert (await client.get("/metrics")).status_code == 401
        response = await client.get("/metrics", headers={"authorization": "Bearer secret", "accept": "text/x"})
    assert (response.status_code, response.text) == (200, "up 1\n")
    assert response.headers["content-type"] == "text/plain; for=text/x"


@in_loop
async def test_metrics_that_are_off_name_the_setting() -> None:
    """A 404, as if there were no such path, which says how to have it."""
    async with client_with(None) as client:
        response = await client.get("/metrics")
    assert response.status_code == 404
    assert "server.metrics" in error_of(response)["message"]


@in_loop
async def test_answers_are_counted_by_route() -> None:
    """Its template, not the path as it came: ids and typing errors make no new series."""
    metrics = FakeMetrics()
    async with client_with(metrics) as client:
        await client.post("/v1/v1/chat/completions", json=HELLO)
        await client.post("/api/requests/chatcmpl-1/cancel")
        await client.get("/nothing/here")
        await client.post("/v1/messages", json={"model": "claude-x", "max_tokens": 1, "messages": HELLO["messages"]})
        await client.get("/health", headers={"host": "evil.example"})
    assert metrics.told == [
        ("/v1/chat/completions", 200, None, "small"),
        ("/api/requests/{request_id}/cancel", 200, None, None),
        ("", 404, "route_not_found", None),
        ("/v1/messages", 200, None, "default"),
        ("", 403, "host_refused", None),
    ]
