"""What cannot be done is refused with 400, in plain words and with the right param; the backend never hears of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from periscope.errors import ContextLengthExceeded, ImageInvalid, InvalidRequest, RequestError
from tests.api.driving import FakeBackend, client_of, error_of, in_loop, post_chat

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "It"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def body(**fields: Any) -> dict[str, Any]:
    return {"messages": [USER]} | fields


def content(*parts: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(parts)}]}


BAD: list[tuple[Any, str | None, str]] = [
    # the body
    (b"", None, "invalid_json"),
    (b"{", None, "invalid_json"),
    (b"\xff\xfe{}", None, "invalid_json"),
    (b'{"messages": [], "temperature": NaN}', None, "invalid_json"),
    (b'{"messages": [], "temperature": -Infinity}', None, "invalid_json"),
    (b'{"messages": [], "temperature": 1e999}', None, "invalid_json"),
    (b'{"seed": ' + b"9" * 5000 + b"}", None, "invalid_json"),
    (b"[" * 100_000, None, "invalid_json"),
    (b'{"a": ' * 200 + b"1" + b"}" * 200, None, "invalid_json"),
    (b"[]", None, "invalid_value"),
    (b"null", None, "invalid_value"),
    (b'"hello"', None, "invalid_value"),
    (b'{"messages": [{"role": "user", "content": "\xed\xa0\xbd"}]}', None, "invalid_json"),
    # types
    ({}, "messages", "invalid_value"),
    (body(messages="hi"), "messages", "invalid_value"),
    (body(messages=None), "messages", "invalid_value"),
    (body(messages=[]), "messages", "invalid_value"),
    (body(messages=["hi"]), "messages[0]", "invalid_value"),
    (body(messages=[USER, {"content": "x"}]), "messages[1].role", "invalid_value"),
    (body(messages=[{"role": 5, "content": "x"}]), "messages[0].role", "invalid_value"),
    (body(messages=[{"role": "robot", "content": "x"}]), "messages[0].role", "invalid_value"),
    (body(messages=[{"role": "function", "content": "x"}]), "messages[0].tool_call_id", "invalid_value"),
    (body(messages=[USER | {"function_call": {"name": "f"}}]), "messages[0].function_call", "invalid_value"),
    (body(messages=[{"role": "user"}]), "messages[0].content", "invalid_value"),
    (body(messages=[{"role": "user", "content": None}]), "messages[0].content", "invalid_value"),
    (body(messages=[{"role": "user", "content": 5}]), "messages[0].content", "invalid_value"),
    (body(messages=[{"role": "user", "content": {"type": "text"}}]), "messages[0].content", "invalid_value"),
    (body(messages=[USER, {"role": "tool", "content": "x"}]), "messages[1].tool_call_id", "invalid_value"),
    (body(model=5), "model", "invalid_value"),
    (body(stream="yes"), "stream", "invalid_value"),
    (body(stream_options={"include_usage": True}), "stream_options", "invalid_value"),
    (body(stream=True, stream_options=True), "stream_options", "invalid_value"),
    (body(temperature="hot"), "temperature", "invalid_value"),
    (body(temperature="0.5"), "temperature", "invalid_value"),
    (body(temperature=True), "temperature", "invalid_value"),
    (body(max_tokens=True), "max_tokens", "invalid_value"),
    (body(max_tokens=1.5), "max_tokens", "invalid_value"),
    (body(max_tokens="5"), "max_tokens", "invalid_value"),
    (body(seed="x"), "seed", "invalid_value"),
    (body(stop=5), "stop", "invalid_value"),
    (body(stop={}), "stop", "invalid_value"),
    (body(stop=["a", 5]), "stop[1]", "invalid_value"),
    # bounds
    (body(temperature=2.5), "temperature", "invalid_value"),
    (body(temperature=-1), "temperature", "invalid_value"),
    (body(top_p=1.1), "top_p", "invalid_value"),
    (body(max_tokens=0), "max_tokens", "invalid_value"),
    (body(max_completion_tokens=0), "max_completion_tokens", "invalid_value"),
    (body(max_tokens=5, max_completion_tokens=-2), "max_completion_tokens", "invalid_value"),
    (body(max_tokens=-2), "max_tokens", "invalid_value"),
    (body(max_tokens=10.5), "max_tokens", "invalid_value"),
    (body(max_tokens=1e300), "max_tokens", "invalid_value"),
    (body(top_k=-2), "top_k", "invalid_value"),
    (body(top_k="-1"), "top_k", "invalid_value"),
    (body(seed=2**70), "seed", "invalid_value"),
    (body(stop=[""]), "stop", "invalid_value"),
    (body(stop=["x"] * 17), "stop", "invalid_value"),
    (body(n=0), "n", "invalid_value"),
    (body(n=True), "n", "invalid_value"),
    (body(n=17), "n", "invalid_value"),
    (body(n=10**40), "n", "invalid_value"),
    (body(n="2"), "n", "invalid_value"),
    (body(max_tokens=10**12), "max_tokens", "invalid_value"),
    (body(max_completion_tokens=10**12), "max_completion_tokens", "invalid_value"),
    (body(temperature=10**400), "temperature", "invalid_value"),
    # log-probabilities and bias
    (body(logprobs=5), "logprobs", "invalid_value"),
    (body(logprobs=True, top_logprobs=21), "top_logprobs", "invalid_value"),
    (body(logprobs=True, top_logprobs=-1), "top_logprobs", "invalid_value"),
    (body(logprobs=True, top_logprobs=True), "top_logprobs", "invalid_value"),
    (body(top_logprobs=5), "top_logprobs", "invalid_value"),
    (body(logprobs=False, top_logprobs=1), "top_logprobs", "invalid_value"),
    (body(logit_bias=[5]), "logit_bias", "invalid_value"),
    (body(logit_bias={"hello": 5}), "logit_bias", "invalid_value"),
    (body(logit_bias={"": 5}), "logit_bias", "invalid_value"),
    (body(logit_bias={"-1": 5}), "logit_bias", "invalid_value"),
    (body(logit_bias={"1_0": 5}), "logit_bias", "invalid_value"),
    (body(logit_bias={" 1": 5}), "logit_bias", "invalid_value"),
    (body(logit_bias={"01": 5}), "logit_bias", "invalid_value"),
    (body(logit_bias={"\u0661": 5}), "logit_bias", "invalid_value"),
    (body(logit_bias={"9" * 5000: 5}), "logit_bias", "invalid_value"),
    (body(logit_bias={"1": "5"}), "logit_bias", "invalid_value"),
    (body(logit_bias={"1": True}), "logit_bias", "invalid_value"),
    (body(logit_bias={"1": None}), "logit_bias", "invalid_value"),
    (body(logit_bias={"1": 100.5}), "logit_bias", "invalid_value"),
    (body(logit_bias={"1": -(10**400)}), "logit_bias", "invalid_value"),
    (body(logit_bias={str(i): 1 for i in range(1025)}), "logit_bias", "invalid_value"),
    (b'{"messages": [{"role": "user", "content": "x"}], "logit_bias": {"1": NaN}}', None, "invalid_json"),
    # where the answer ends
    (body(min_tokens=-1), "min_tokens", "invalid_value"),
    (body(min_tokens=9, max_tokens=8), "min_tokens", "invalid_value"),
    (body(min_tokens=9, max_completion_tokens=8), "min_tokens", "invalid_value"),
    (body(ignore_eos=1), "ignore_eos", "invalid_value"),
    (body(stop_token_ids=["1"]), "stop_token_ids[0]", "invalid_value"),
    (body(stop_token_ids=[1] * 129), "stop_token_ids", "invalid_value"),
    # the chat template
    (body(chat_template_kwargs=[]), "chat_template_kwargs", "invalid_value"),
    (body(chat_template_kwargs={"chat_template": "x"}), "chat_template_kwargs.chat_template", "unsupported_parameter"),
    (body(chat_template_kwargs={"tokenize": True}), "chat_template_kwargs.tokenize", "unsupported_parameter"),
    (body(reasoning_effort="lots"), "reasoning_effort", "invalid_value"),
    (body(reasoning_effort=3), "reasoning_effort", "invalid_value"),
    (body(reasoning_effort={}), "reasoning_effort", "invalid_value"),
    # what we cannot do
    (
        body(functions=[{"name": "f"}], tools=[{"type": "function", "function": {"name": "f"}}]),
        "functions",
        "invalid_value",
    ),
    (body(functions=[{"name": "f"}, {"name": "f"}]), "functions[1].name", "invalid_value"),
    (body(functions=[{"name": "f"}], function_call={"name": "g"}), "function_call.name", "invalid_value"),
    (body(functions=[{"name": "f"}], function_call="required"), "function_call", "invalid_value"),
    (body(function_call={"name": "f"}), "function_call", "invalid_value"),
    (body(modalities=["text", "audio"]), "modalities", "unsupported_parameter"),
    (body(prediction="def f()"), "prediction", "invalid_value"),
    (body(prediction={"type": "tokens", "content": "a"}), "prediction.type", "invalid_value"),
    (body(prediction={"content": "a"}), "prediction.type", "invalid_value"),
    (body(prediction={"type": "content", "content": 7}), "prediction.content", "invalid_value"),
    (
        body(prediction={"type": "content", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}),
        "prediction.content[0]",
        "invalid_value",
    ),
    (body(audio={"voice": "alloy"}), "audio", "unsupported_parameter"),
    (body(bad_words=["a"]), "bad_words", "unsupported_parameter"),
    (body(structured_outputs={"structural_tag": "{}"}), "structured_outputs.structural_tag", "unsupported_parameter"),
    (body(chat_template="{{ messages }}"), "chat_template", "unsupported_parameter"),
    # tools
    (body(tools={}), "tools", "invalid_value"),
    (body(tools=[{}]), "tools[0].type", "invalid_value"),
    (body(tools=[{"type": "function"}]), "tools[0].function", "invalid_value"),
    (body(tools=[{"type": "function", "function": {"name": ""}}]), "tools[0].function.name", "invalid_value"),
    (
        body(tools=[{"type": "function", "function": {"name": "f", "parameters": []}}]),
        "tools[0].function.parameters",
        "invalid_value",
    ),
    (body(tools=[{"type": "custom"}]), "tools[0].custom", "invalid_value"),
    (body(tools=[{"type": "web_search"}]), "tools[0].type", "unsupported_parameter"),
    (
        body(tools=[{"type": "custom", "custom": {"name": "f", "format": {"type": "xml"}}}]),
        "tools[0].custom.format.type",
        "unsupported_parameter",
    ),
    (
        body(messages=[{"role": "assistant", "tool_calls": [{"id": "a", "type": "custom"}]}]),
        "messages[0].tool_calls[0].custom",
        "invalid_value",
    ),
    (
        body(messages=[{"role": "user", "content": "x", "tool_calls": [{"id": "a", "function": {"name": "f"}}]}]),
        "messages[0].tool_calls",
        "invalid_value",
    ),
    (
        body(messages=[{"role": "assistant", "tool_calls": [{"id": 5, "function": {"name": "f"}}]}]),
        "messages[0].tool_calls[0].id",
        "invalid_value",
    ),
    # what stands where it is not read
    (body(messages=[USER | {"images": ["AAAA"]}]), "messages[0].images", "unsupported_parameter"),
    (body(messages=[USER | {"image_url": {"url": "x"}}]), "messages[0].image_url", "unsupported_parameter"),
    (body(messages=[USER | {"files": [{"id": "f"}]}]), "messages[0].files", "unsupported_parameter"),
    (body(messages=[USER | {"attachments": [{"id": "f"}]}]), "messages[0].attachments", "unsupported_parameter"),
    (body(messages=[USER | {"audio": {"id": "a"}}]), "messages[0].audio", "unsupported_parameter"),
    (body(messages=[USER | {"video": "x"}]), "messages[0].video", "unsupported_parameter"),
    (body(messages=[USER | {"shot": [{"a": "data:image/png;base64,A"}]}]), "messages[0].shot", "unsupported_parameter"),
    (
        body(messages=[{"role": "assistant", "parts": [{"type": "text", "text": "x"}]}]),
        "messages[0].parts",
        "unsupported_parameter",
    ),
    # answers that go on
    (body(messages=[USER, ANSWER | {"prefix": True}, USER]), "messages[1].prefix", "invalid_value"),
    (body(messages=[USER | {"partial": True}]), "messages[0]", "invalid_value"),
    (body(continue_final_message=True), "messages[0]", "invalid_value"),
    (
        body(messages=[USER, ANSWER], continue_final_message=True, add_generation_prompt=True),
        "add_generation_prompt",
        "invalid_value",
    ),
    (body(add_generation_prompt=False), "add_generation_prompt", "unsupported_parameter"),
    (
        body(messages=[USER, {"role": "assistant", "tool_calls": [CALL]}], continue_final_message=True),
        "messages[1]",
        "invalid_value",
    ),
    (body(messages=[{"role": "assistant", "content": "", "prefix": True}]), "messages[0]", "invalid_value"),
    (body(messages=[USER, ANSWER | {"prefix": "yes"}]), "messages[1].prefix", "invalid_value"),
    (body(system="Be brief."), "system", "unsupported_parameter"),
    (body(images=["AAAA"]), "images", "unsupported_parameter"),
    (body(documents=[{"text": "x"}]), "documents", "unsupported_parameter"),
    (
        body(messages=[{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": 5}}]}]),
        "messages[0].tool_calls[0].function.arguments",
        "invalid_value",
    ),
    # content parts
    (content("hi"), "messages[0].content[0]", "invalid_value"),
    (content({}), "messages[0].content[0]", "invalid_value"),
    (content({"type": ["text"]}), "messages[0].content[0]", "invalid_value"),
    (content({"type": "text", "text": "a"}, {"type": "input_audio"}), "messages[0].content[1]", "invalid_value"),
    (content({"type": "file", "file": "x"}), "messages[0].content[0].file", "invalid_value"),
    (content({"type": "file", "file": {"file_data": 5}}), "messages[0].content[0].file.file_data", "invalid_value"),
    (content({"type": "input_file", "filename": 5}), "messages[0].content[0].filename", "invalid_value"),
    (content({"type": "document"}), "messages[0].content[0].source", "invalid_value"),
    (content({"type": "document", "source": {"type": "x"}}), "messages[0].content[0].source.type", "invalid_value"),
    (
        content({"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": True}}),
        "messages[0].content[0].citations",
        "invalid_value",
    ),
    (content({"type": "tool_use", "id": "t", "name": "f"}), "messages[0].content[0]", "invalid_value"),
    (
        content({"type": "tool_use", "id": "t", "name": "f", "input": [1]}, role="assistant"),
        "messages[0].content[0].input",
        "invalid_value",
    ),
    (content({"type": "thinking", "thinking": "x"}), "messages[0].content[0]", "invalid_value"),
    (
        content({"type": "thinking", "thinking": 5}, role="assistant"),
        "messages[0].content[0].thinking",
        "invalid_value",
    ),
    (content({"type": "video_url", "video_url": {}}), "messages[0].content[0].video_url.url", "invalid_value"),
    (content({"type": "text"}), "messages[0].content[0].text", "invalid_value"),
    (content({"type": "text", "text": 5}), "messages[0].content[0].text", "invalid_value"),
    (content({"type": "image_url"}), "messages[0].content[0].image_url", "invalid_value"),
    (content({"type": "image_url", "image_url": ""}), "messages[0].content[0].image_url", "invalid_value"),
    (content({"type": "image_url", "image_url": {"url": 5}}), "messages[0].content[0].image_url.url", "invalid_value"),
    (content({"type": "input_image", "file_id": ""}), "messages[0].content[0].image_url", "invalid_value"),
    (content({"type": "image"}), "messages[0].content[0].source", "invalid_value"),
    (content({"type": "image", "source": {"type": "blob"}}), "messages[0].content[0].source.type", "invalid_value"),
    (
        content({"type": "image", "source": {"type": "base64", "data": "AA=="}}),
        "messages[0].content[0].source.media_type",
        "invalid_value",
    ),
    (
        content({"type": "image", "source": {"type": "base64", "media_type": "image/png,x", "data": "AA=="}}),
        "messages[0].content[0].source.media_type",
        "invalid_value",
    ),
    (
        content({"type": "tool_result", "content": [{"type": "tool_result", "content": []}]}),
        "messages[0].content[0].content[0]",
        "invalid_value",
    ),
]


@pytest.mark.parametrize(("bad", "param", "code"), BAD, ids=[str(i) for i in range(len(BAD))])
@in_loop
async def test_a_bad_request_is_a_400_that_names_its_field(bad: Any, param: str | None, code: str) -> None:
    """Peers answer these with 200, 422 or 500, or die of them."""
    backend = FakeBackend()
    response = await post_chat(backend, bad)
    assert response.status_code == 400
    told = error_of(response)
    assert (told["param"], told["code"], told["type"]) == (param, code, "invalid_request_error")
    assert param is None or param in told["message"]
    assert not backend.requests


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("`logit_bias` holds a token id outside of the vocabulary.", param="logit_bias"),
        InvalidRequest("The schema cannot be enforced.", param="response_format.json_schema.schema"),
        ImageInvalid("The image is broken.", param="messages[0].content[1]"),
        ContextLengthExceeded(10, 8),
    ],
)
@in_loop
async def test_what_only_the_model_can_tell_is_a_400_too(error: RequestError, stream: bool) -> None:
    """The client's fault has its status and its field however late it is found, streamed or not."""
    response = await post_chat(FakeBackend(error), body(stream=stream))
    assert response.status_code == 400
    told = error_of(response)
    assert (told["param"], told["message"], told["type"]) == (error.param, error.message, "invalid_request_error")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (body(temperature="hot"), '`temperature` must be a number, got the string "hot".'),
        (body(temperature=True), "`temperature` must be a number, got true."),
        (body(stop=5), "`stop` must be a string or a list of strings, got the number 5."),
        (body(messages=[]), "`messages` must be a list that is not empty, got an empty list."),
        ({}, "`messages` is missing."),
        ([], "The request body must be an object, got an empty list."),
        (body(n=20), "`n` must be between 1 and 16, got 20."),
        (
            body(logit_bias={"hello": 5}),
            (
                '`logit_bias` must hold numbers under token ids, such as {"1234": -5}, '
                'got the number 5 under the string "hello".'
            ),
        ),
        (body(logit_bias={"7": 101}), "`logit_bias` must be between -100.0 and 100.0, got 101."),
        (body(top_logprobs=2), "`top_logprobs` needs `logprobs: true`."),
        (
            body(messages=[USER | {"images": ["AAAA"]}]),
            "`messages[0].images` is not read: put each picture into `content` as an `image_url` part.",
        ),
        (
            body(messages=[USER, {"role": "tool", "content": "x"}]),
            (
                "`messages[1].tool_call_id` is missing, and no call stands before this tool message that it could "
                "answer. Send the `id` of the call."
            ),
        ),
        (body(bad_words=["a"]), "`bad_words` is not supported; leave it out."),
        (
            body(reasoning_effort="lots"),
            (
                "`reasoning_effort` must be `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`, "
                'got the string "lots".'
            ),
        ),
        (
            body(temperature="x" * 500),
            f'`temperature` must be a number, got the string "{"x" * 61}...".',
        ),
        (body(top_p="a", min_p="b"), '`top_p` must be a number, got the string "a". (And 1 more.)'),
    ],
)
@in_loop
async def test_messages_are_plain_words(bad: Any, message: str) -> None:
    """A person reads what is wrong, what was expected and what came; long values are cut."""
    assert error_of(await post_chat(FakeBackend(), bad))["message"] == message


@in_loop
async def test_a_body_over_the_limit_is_refused_while_it_is_read() -> None:
    """413 comes by content-length, and without one as soon as the limit is passed."""
    consumed = 0

    async def endless() -> Any:
        nonlocal consumed
        while True:
            consumed += 1
            yield b"x" * 100

    async with client_of(FakeBackend(), max_body_bytes=1000) as client:
        response = await client.post("/v1/chat/completions", content=b"x" * 1001)
        assert response.status_code == 413
        assert error_of(response)["code"] == "body_too_large"
        response = await client.post("/v1/chat/completions", content=endless())
        assert response.status_code == 413
        assert consumed <= 12
        exact = json.dumps(body(pad="")).encode()
        exact = json.dumps(body(pad="x" * (1000 - len(exact)))).encode()
        assert len(exact) == 1000
        assert (await client.post("/v1/chat/completions", content=exact)).status_code == 200
