"""`/v1/completions` on a real server, with the official SDK."""

from __future__ import annotations

import httpx
import openai

from tests.e2e.conftest import RunningServer
from tests.e2e.drawing import circle, picture, user


def test_texts_and_tokens_are_completed_alike(server: RunningServer, client: httpx.Client) -> None:
    """Streamed and not, as a text and as its tokens, alone and beside others; what was used is told."""
    text = "What can you do? I can"
    tokens = client.post("/tokenize", json={"prompt": text}).json()["tokens"]
    with openai.OpenAI(api_key="key", base_url=f"{server.url}/v1") as sdk:
        alone = sdk.completions.create(model="demo", prompt=text, max_tokens=8, temperature=0, logprobs=1)
        both = sdk.completions.create(model="demo", prompt=[tokens, [5]], max_tokens=8, temperature=0)
        chunks = list(sdk.completions.create(model="demo", prompt=tokens, max_tokens=8, temperature=0, stream=True))
    (choice,) = alone.choices
    assert choice.text == both.choices[0].text == "".join(chunk.choices[0].text for chunk in chunks) != ""
    assert choice.logprobs is not None
    assert choice.logprobs.tokens is not None
    assert "".join(choice.logprobs.tokens) == choice.text
    assert alone.usage is not None
    assert alone.usage.prompt_tokens == len(tokens)


def test_a_completion_that_nobody_waits_for_ends(client: httpx.Client) -> None:
    """The client leaves a stream of many rows, and the server is idle soon."""
    body = {"prompt": ["Hello", "What"], "n": 4, "max_tokens": 400, "ignore_eos": True, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as response:
        next(response.iter_lines())
    with client.stream("GET", "/api/events") as events:
        for line in events.iter_lines():
            if line.startswith("data:") and not client.get("/api/requests").json()["requests"]:
                return


def test_a_chats_answer_goes_on_beside_a_picture(client: httpx.Client) -> None:
    """The picture is described as ever; what comes follows the client's words. `/tokenize` shows the prompt."""
    ask = user("What is this?", picture(circle()))
    body = {"messages": [ask], "temperature": 0, "max_tokens": 60}
    whole = client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    cut = whole.index(" ")
    begun = body | {"messages": [ask, {"role": "assistant", "content": whole[:cut]}], "continue_final_message": True}
    answer = client.post("/v1/chat/completions", json=begun).json()
    assert answer["choices"][0]["message"]["content"] == whole[cut:]
    tokens = client.post("/tokenize", json=begun).json()["tokens"]
    assert len(tokens) == answer["usage"]["prompt_tokens"]
    assert client.post("/detokenize", json={"tokens": tokens}).json()["prompt"].endswith(whole[:cut])
