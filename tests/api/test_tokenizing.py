"""`/tokenize` and `/detokenize`: the shapes of vLLM and llama.cpp, and errors that name the field."""

from __future__ import annotations

from typing import Any

import pytest

from periscope.api.openai.tokenizing import MAX_CHARS
from tests.api.driving import FakeBackend, client_of, error_of, in_loop


async def posted(path: str, body: dict[str, Any], backend: FakeBackend) -> Any:
    async with client_of(backend) as client:
        response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


@in_loop
async def test_a_prompt_is_tokenized_in_vllms_shape() -> None:
    """Special tokens are added unless they are refused; the tokens' texts come when they are asked for."""
    backend = FakeBackend()
    plain = await posted("/tokenize", {"model": "small", "prompt": "hi"}, backend)
    assert plain == {"count": 2, "max_model_len": 4096, "tokens": [5, 9], "token_strs": None}
    asked = {"prompt": "hi", "add_special_tokens": False, "return_token_strs": True}
    assert (await posted("/v1/tokenize", asked, backend))["token_strs"] == ["a", "\ufffd"]
    assert backend.tokenized == [("small", "hi", True), ("", "hi", False)]


@in_loop
async def test_content_is_tokenized_in_llama_cpps_shape() -> None:
    """Without special tokens unless asked for; a piece that is no whole character is told by its bytes."""
    backend = FakeBackend()
    assert await posted("/tokenize", {"content": "hi"}, backend) == {"tokens": [5, 9]}
    pieces = await posted("/tokenize", {"content": "hi", "with_pieces": True, "add_special": True}, backend)
    assert pieces == {"tokens": [{"id": 5, "piece": "a"}, {"id": 9, "piece": [0xC3]}]}
    assert [adds for _, _, adds in backend.tokenized] == [False, True]


@in_loop
async def test_a_chat_is_tokenized_as_it_would_be_answered() -> None:
    """With its tools and template variables, decoded as by chat completions."""
    backend = FakeBackend()
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    body = {"messages": [{"role": "user", "content": "hi"}], "tools": [tool], "chat_template_kwargs": {"x": 1}}
    assert (await posted("/tokenize", body, backend))["count"] == 2
    (request,) = backend.requests
    assert request.messages[0].text == "hi"
    assert [tool.name for tool in request.output.tools] == ["look"]
    assert request.template_kwargs == {"x": 1}


@in_loop
async def test_tokens_become_text_under_both_names() -> None:
    """It is `prompt` with vLLM and `content` with llama.cpp."""
    backend = FakeBackend()
    answer = await posted("/detokenize", {"model": "small", "tokens": [1, 2]}, backend)
    assert answer == {"prompt": "text of tokens", "content": "text of tokens"}
    assert backend.detokenized == [("small", (1, 2))]


@pytest.mark.parametrize(
    ("path", "body", "param", "told"),
    [
        ("/tokenize", {}, "prompt", "Got none."),
        ("/tokenize", {"prompt": "a", "content": "b"}, "prompt", "Got prompt and content."),
        ("/tokenize", {"prompt": 5}, "prompt", "must be a string"),
        ("/tokenize", {"prompt": "a" * (MAX_CHARS + 1)}, "prompt", f"at most {MAX_CHARS} are taken"),
        ("/tokenize", {"content": "a", "parse_special": False}, "parse_special", "must be true"),
        ("/tokenize", {"messages": []}, "messages", "a list that is not empty"),
        (
            "/tokenize",
            {"messages": [{"role": "user", "content": "a"}], "add_special_tokens": True},
            "add_special_tokens",
            "goes with `prompt`",
        ),
        (
            "/tokenize",
            {"messages": [{"role": "user", "content": "a"}], "add_generation_prompt": False},
            "add_generation_prompt",
            "without `continue_final_message: true`",
        ),
        ("/detokenize", {}, "tokens", "is missing"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]", "a whole number"),
    ],
)
@in_loop
async def test_what_cannot_be_tokenized_is_told_by_field(
    path: str, body: dict[str, Any], param: str, told: str
) -> None:
    """A 400 before the model is touched."""
    backend = FakeBackend()
    async with client_of(backend) as client:
        response = await client.post(path, json=body)
    assert response.status_code == 400
    assert error_of(response)["param"] == param
    assert told in error_of(response)["message"]
    assert [*backend.tokenized, *backend.requests, *backend.detokenized] == []
