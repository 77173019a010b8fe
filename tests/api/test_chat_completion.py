"""POST /v1/chat/completions, answered in whole."""

from __future__ import annotations

from typing import Any

import pytest

from periscope.core import (
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    VisionUsage,
    Waiting,
    WaitStatus,
)
from periscope.errors import ServerStopping
from tests.api.driving import FINISHED, HELLO, USAGE, FakeBackend, called, error_of, in_loop, post_chat

CALLS = (
    *called(0, ToolCall("call_a", "weather", '{"city":"Kraków"}')),
    *called(1, ToolCall("call_b", "time", "{}")),
)


@in_loop
async def test_a_whole_answer() -> None:
    """Deltas are joined, usage is the text model's, and the id leads to the request id."""
    backend = FakeBackend(Waiting(WaitStatus.LOADING), TextDelta("Hel"), TextDelta("lo \ud83d"), FINISHED)
    response = await post_chat(backend)
    assert response.status_code == 200
    told = response.json()
    (request,) = backend.requests
    assert told.pop("created") > 1_700_000_000
    assert told == {
        "id": request.id,
        "object": "chat.completion",
        "model": "small",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello \ud83d", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 11,
            "completion_tokens": 4,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 3},
            "completion_tokens_details": {
                "reasoning_tokens": 2,
                "accepted_prediction_tokens": 1,
                "rejected_prediction_tokens": 5,
            },
        },
    }
    assert request.id.removeprefix("chatcmpl-") == response.headers["x-request-id"].removeprefix("req_")


@in_loop
async def test_reasoning_and_tool_calls_have_their_fields() -> None:
    """Content is null beside calls alone, and reasoning never mixes with the answer."""
    finished = Finished(FinishReason.TOOL_CALLS, USAGE)
    response = await post_chat(FakeBackend(ReasoningDelta("so "), ReasoningDelta("what"), *CALLS, finished))
    (choice,) = response.json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "refusal": None,
        "role": "assistant",
        "content": None,
        "reasoning_content": "so what",
        "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Kraków"}'}},
            {"id": "call_b", "type": "function", "function": {"name": "time", "arguments": "{}"}},
        ],
    }


@in_loop
async def test_a_client_that_takes_one_call_gets_one() -> None:
    """`parallel_tool_calls: false` is honoured."""
    backend = FakeBackend(*CALLS, Finished(FinishReason.TOOL_CALLS, USAGE))
    response = await post_chat(backend, HELLO | {"parallel_tool_calls": False})
    assert [c["id"] for c in response.json()["choices"][0]["message"]["tool_calls"]] == ["call_a"]


@in_loop
async def test_an_empty_answer_is_an_empty_string() -> None:
    """Content is null only beside tool calls."""
    response = await post_chat(FakeBackend(FINISHED))
    assert response.json()["choices"][0]["message"] == {"role": "assistant", "content": "", "refusal": None}


@in_loop
async def test_vision_usage_has_its_own_field() -> None:
    """What captions cost is told apart from the text model's usage, and only when there was an image."""
    finished = Finished(FinishReason.STOP, USAGE, VisionUsage(3, 1, 1, 80, 950, 120))
    told = (await post_chat(FakeBackend(finished))).json()
    assert told["periscope"] == {
        "vision": {
            "num_images": 3,
            "num_cache_hits": 1,
            "num_failed": 1,
            "num_caption_tokens": 80,
            "caption_ms": 950,
            "reader_ms": 120,
            "num_looks": 0,
        }
    }
    assert told["usage"]["total_tokens"] == 15


@pytest.mark.parametrize(
    ("asked", "told"),
    [({}, "org/text"), ({"model": ""}, "org/text"), ({"model": "default"}, "org/text"), ({"model": "small"}, "small")],
)
@in_loop
async def test_the_answer_names_the_model_asked_for(asked: dict[str, Any], told: str) -> None:
    """An alias is echoed; who asked for none learns the configured name."""
    backend = FakeBackend()
    response = await post_chat(backend, {"messages": HELLO["messages"]} | asked)
    assert response.json()["model"] == told
    assert backend.requests[0].model == asked.get("model", "")


@in_loop
async def test_the_reply_waits_for_the_backend_to_clean_up() -> None:
    """Who has the answer knows that its request holds nothing any more."""
    backend = FakeBackend()
    await post_chat(backend)
    assert backend.num_open == 0


@in_loop
async def test_an_answer_without_an_end_is_an_error() -> None:
    """A backend that just stops did not succeed."""
    response = await post_chat(FakeBackend(TextDelta("Hi")))
    assert response.status_code == 500
    assert error_of(response)["code"] == "generation_failed"


@in_loop
async def test_a_stopping_server_takes_no_requests() -> None:
    """503 with Retry-After: a client that waits finds the next server."""
    response = await post_chat(FakeBackend(ServerStopping("The server is stopping.")))
    assert response.status_code == 503
    assert error_of(response)["code"] == "server_stopping"
    assert response.headers["retry-after"] == "1"
