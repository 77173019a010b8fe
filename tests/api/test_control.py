"""`/api`: Periscope's own routes."""

from __future__ import annotations

from typing import Any

import pytest

from periscope.core import ImagePart
from periscope.errors import ImageInvalid, ModelUnavailable
from tests.api.driving import Exchange, FakeBackend, Gate, app_over, client_of, error_of, in_loop


@in_loop
async def test_captions_come_in_the_order_of_the_images() -> None:
    """Each picture gets its words, its size and who described it."""
    backend = FakeBackend()
    async with client_of(backend) as client:
        reply = await client.post("/api/captions", json={"model": "m", "images": ["data:a", "data:b"]})
    assert reply.json() == {
        "captions": [
            {"text": f"image {n}", "error": None, "width": 4, "height": 3, "captioner": "eyes"} for n in (1, 2)
        ]
    }
    assert backend.captioned == ("m", (ImagePart("data:a", "images[0]"), ImagePart("data:b", "images[1]")))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "images"),
        ({"images": []}, "images"),
        ({"images": "data:a"}, "images"),
        ({"images": [5]}, "images[0]"),
        ({"images": ["data:a"], "model": 5}, "model"),
    ],
)
@in_loop
async def test_malformed_caption_requests_name_their_field(body: dict[str, Any], param: str) -> None:
    """A wrong field is a 400 that says which."""
    async with client_of(FakeBackend()) as client:
        reply = await client.post("/api/captions", json=body)
    assert (reply.status_code, error_of(reply)["param"]) == (400, param)


@pytest.mark.parametrize(
    ("error", "status"), [(ImageInvalid("broken", param="images[0]"), 400), (ModelUnavailable("no eyes"), 503)]
)
@in_loop
async def test_caption_errors_have_their_rows(error: Exception, status: int) -> None:
    """What the backend raises is told as everywhere."""
    async with client_of(FakeBackend(error)) as client:
        reply = await client.post("/api/captions", json={"images": ["data:a"]})
    assert reply.status_code == status
    assert error_of(reply)["message"]


@in_loop
async def test_leaving_cancels_the_captions() -> None:
    """No captioner works for a client that has gone."""
    gate = Gate()
    exchange = Exchange(app_over(FakeBackend(gate)), {"images": ["data:a"]}, path="/api/captions")
    await gate.reached.wait()
    exchange.disconnect()
    await exchange.task
    assert not exchange.messages
