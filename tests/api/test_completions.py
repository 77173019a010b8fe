"""`/v1/completions`: OpenAI's older API, decoded and encoded in its own shapes; the official SDK is the client."""

from __future__ import annotations

from typing import Any

import pytest

from periscope.core import (
    MAX_COMPLETIONS,
    AnswerGrammar,
    Echo,
    Finished,
    FinishReason,
    TextDelta,
    TextPrompt,
    TokenLogprob,
    TokenText,
    Waiting,
    WaitStatus,
)
from periscope.errors import GenerationFailed
from tests.api.driving import FINISHED, USAGE, FakeBackend, client_of, error_of, in_loop
from tests.api.exchange import chunks_of, frames_of
from tests.api.test_openai_sdk import sdk_over

URL = "/v1/completions"
TWO = Finished(FinishReason.STOP, USAGE, other_finish_reasons=(FinishReason.LENGTH,))


async def request_of(**body: Any) -> Any:
    """What the backend is asked."""
    backend = FakeBackend()
    async with client_of(backend) as client:
        response = await client.post(URL, json={"model": "small", **body})
    assert response.status_code == 200, response.text
    (request,) = backend.requests
    return request


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("Hi", [TextPrompt("Hi")]),
        (["Hi", ""], [TextPrompt("Hi", param="prompt[0]"), TextPrompt("", param="prompt[1]")]),
        ([5, 9], [TextPrompt((5, 9))]),
        ([[5], [9, 1]], [TextPrompt((5,), param="prompt[0]"), TextPrompt((9, 1), param="prompt[1]")]),
    ],
)
@in_loop
async def test_a_prompt_has_four_forms(prompt: Any, prompts: list[TextPrompt]) -> None:
    """A text, several, the tokens of one, those of several; none of them is a message."""
    request = await request_of(prompt=prompt)
    assert list(request.prompts) == prompts
    assert request.messages == ()


@in_loop
async def test_the_defaults_are_those_of_openai() -> None:
    """16 tokens, no echo, no log-probabilities; -1 is no limit, as vLLM's clients write it."""
    request = await request_of(prompt="Hi")
    assert (request.params.max_tokens, request.params.logprobs, request.echo) == (16, False, Echo.NONE)
    assert (await request_of(prompt="Hi", max_tokens=-1)).params.max_tokens is None


@in_loop
async def test_the_parameters_are_those_of_chats_and_the_older_ones() -> None:
    """VLLM's extras among them; an empty suffix is none."""
    request = await request_of(
        prompt="Hi",
        suffix="!",
        n=2,
        best_of=2,
        logprobs=3,
        stop="x",
        min_tokens=1,
        guided_choice=["a"],
        logit_bias={"5": 1},
    )
    assert request.prompts[0].suffix == "!"
    assert request.num_choices == 2
    assert (request.params.logprobs, request.params.top_logprobs, request.params.stop) == (True, 3, ("x",))
    assert (request.params.min_tokens, request.params.logit_bias) == (1, ((5, 1),))
    assert request.output.response_format == AnswerGrammar(choices=("a",), param="guided_choice")
    assert (await request_of(prompt="Hi", suffix="")).prompts[0].suffix is None
    assert not (await request_of(prompt="Hi", add_special_tokens=False)).prompts[0].adds_special_tokens
    assert (await request_of(prompt="Hi", echo=True)).echo is Echo.PROMPT
    assert (await request_of(prompt="Hi", echo=True, max_tokens=0)).echo is Echo.ALONE


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({}, "prompt", "is missing"),
        ({"prompt": None}, "prompt", "a list of token ids"),
        ({"prompt": []}, "prompt", "is empty"),
        ({"prompt": [[]]}, "prompt[0]", "is empty"),
        ({"prompt": [1, "a"]}, "prompt[1]", "must be a token id"),
        ({"prompt": ["a", 1]}, "prompt[1]", "a string or a list of token ids"),
        ({"prompt": [True]}, "prompt[0]", "a string or a list of token ids"),
        ({"prompt": ["a"] * (MAX_COMPLETIONS + 1)}, "prompt", f"at most {MAX_COMPLETIONS}"),
        ({"prompt": ["a"] * MAX_COMPLETIONS, "n": 2}, "prompt", f"at most {MAX_COMPLETIONS}"),
        ({"prompt": "a", "n": 0}, "n", "between 1"),
        ({"prompt": "a", "best_of": 3}, "best_of", "more than `n`"),
        ({"prompt": "a", "best_of": 1, "n": 2}, "best_of", "at least as many"),
        ({"prompt": "a", "logprobs": 6}, "logprobs", "between 0 and 5"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens", "without `echo`"),
        ({"prompt": "a", "max_tokens": -2}, "max_tokens", "between 1"),
        ({"prompt": "a", "min_tokens": 17}, "min_tokens", "16 tokens at most"),
        ({"prompt": "a", "echo": True, "suffix": "b"}, "echo", "beside `suffix`"),
        ({"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options", "only allowed when"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "Hi"}]}, "messages", "not supported"),
        ({"prompt": "a", "use_beam_search": True}, "use_beam_search", "not supported"),
    ],
)
@in_loop
async def test_what_cannot_be_completed_is_told_by_field(body: dict[str, Any], param: str, told: str) -> None:
    """A 400 with the limit and the fix, before the model is touched."""
    backend = FakeBackend()
    async with client_of(backend) as client:
        response = await client.post(URL, json=body)
    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert told in error_of(response)["message"]
    assert backend.requests == []


@in_loop
async def test_a_completion_in_the_sdks_types() -> None:
    """Choices in order, each with its own reason; a token that is no whole character is told by its bytes."""
    whole, half = TokenText(7, "é", "é".encode()), TokenText(9, "\ufffd", b"\xc3")
    rest = TokenText(8, "\ufffd", b"\xa9")
    events = (
        TextDelta("é", (TokenLogprob(whole, -0.5, ((whole, -0.5), (half, -1.5))),)),
        TextDelta("", (TokenLogprob(half, -3.0),)),
        TextDelta("é", (TokenLogprob(rest, float("-inf")),)),
        TextDelta("b", choice=1),
        TWO,
    )
    async with sdk_over(FakeBackend(*events)) as sdk:
        completion = await sdk.completions.create(model="small", prompt=["a", "b"], logprobs=2)
    assert [(choice.index, choice.text, choice.finish_reason) for choice in completion.choices] == [
        (0, "éé", "stop"),
        (1, "b", "length"),
    ]
    assert completion.choices[1].logprobs is None
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["é", r"bytes:\xc3", r"bytes:\xa9"]
    assert logprobs.token_logprobs == [-0.5, -3.0, -9999.0]
    assert logprobs.top_logprobs == [{"é": -0.5, r"bytes:\xc3": -1.5}, {r"bytes:\xc3": -3.0}, {r"bytes:\xa9": -9999.0}]
    assert logprobs.text_offset == [0, 1, 1]
    assert completion.usage is not None
    assert completion.usage.total_tokens == 15


@in_loop
async def test_a_stream_in_the_sdks_types() -> None:
    """Waits are empty chunks; offsets go on from chunk to chunk, for each choice by itself; usage only if asked for."""
    entry = TokenLogprob(TokenText(7, "ab", b"ab"), -0.5)
    events = (
        Waiting(WaitStatus.LOADING, "small", 1, 0.5, 2.5),
        TextDelta("ab", (entry,)),
        TextDelta("ab", (entry,), choice=1),
        TextDelta("ab", (entry,)),
        TWO,
    )
    texts, offsets, reasons = ["", ""], list[int](), dict[int, str]()
    async with sdk_over(FakeBackend(*events)) as sdk:
        stream = await sdk.completions.create(
            model="small", prompt="a", n=2, stream=True, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            assert chunk.object == "text_completion"
            for choice in chunk.choices:
                texts[choice.index] += choice.text
                offsets += [] if choice.logprobs is None else choice.logprobs.text_offset or []
                reasons |= {choice.index: choice.finish_reason} if choice.finish_reason else {}
            usage = chunk.usage
    assert texts == ["abab", "ab"]
    assert offsets == [0, 0, 2]
    assert reasons == {0: "stop", 1: "length"}
    assert usage is not None
    assert usage.completion_tokens == 4


@in_loop
async def test_a_stream_ends_with_done_also_when_it_fails() -> None:
    """The wait stands in our field; a failure is an error event, and there is no finish reason then."""
    async with client_of(FakeBackend(Waiting(WaitStatus.LOADING, "small", 1, 0.5, 2.5), FINISHED)) as client:
        text = (await client.post(URL, json={"prompt": "a", "stream": True})).text
    opening, waiting, end = chunks_of(text)
    assert opening["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": None}]
    assert waiting["periscope"]["status"] == "loading"
    assert end["choices"][0]["finish_reason"] == "stop"
    assert "usage" not in end
    assert frames_of(text)[-1] == "[DONE]"
    async with client_of(FakeBackend(TextDelta("a"), GenerationFailed("broken"))) as client:
        text = (await client.post(URL, json={"prompt": "a", "stream": True})).text
    *_, failure = chunks_of(text)
    assert failure["error"]["message"] == "broken"
    assert frames_of(text)[-1] == "[DONE]"


@in_loop
async def test_the_first_token_of_an_echoed_prompt_has_no_log_probability() -> None:
    """As OpenAI tells it: null, and null in place of its alternatives."""
    first = TokenLogprob(TokenText(7, "a", b"a"), None)
    backend = FakeBackend(TextDelta("ab", (first, TokenLogprob(TokenText(8, "b", b"b"), -0.5))), FINISHED)
    async with client_of(backend) as client:
        body = {"prompt": "ab", "echo": True, "logprobs": 0, "max_tokens": 0}
        logprobs = (await client.post(URL, json=body)).json()["choices"][0]["logprobs"]
    assert logprobs == {
        "tokens": ["a", "b"],
        "token_logprobs": [None, -0.5],
        "top_logprobs": [None, {"b": -0.5}],
        "text_offset": [0, 1],
    }
    assert backend.requests[0].params.prompt_logprobs
