"""`/tokenize` and `/detokenize` on a real server: what they say is what the model reads."""

from __future__ import annotations

from typing import Any

import httpx

from tests.e2e.drawing import circle, picture, user

QUESTION = "What can you do? \u00e9\U0001f600 <|im_end|>"


def test_a_text_comes_back_from_its_tokens(client: httpx.Client) -> None:
    """Also one with letters of several tokens and with control tokens in it, in both shapes."""
    told = client.post("/tokenize", json={"prompt": QUESTION, "return_token_strs": True}).json()
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert client.post("/detokenize", json={"tokens": told["tokens"]}).json()["prompt"] == QUESTION
    pieces = client.post("/tokenize", json={"content": QUESTION, "with_pieces": True}).json()["tokens"]
    assert [piece["id"] for piece in pieces] == told["tokens"]
    written = [
        bytes(piece["piece"]) if isinstance(piece["piece"], list) else piece["piece"].encode() for piece in pieces
    ]
    assert b"".join(written).decode() == QUESTION


def test_a_chats_tokens_are_the_prompt_of_its_answer(client: httpx.Client) -> None:
    """The count is the answer's `prompt_tokens`; a picture counts as its description, which is made once."""
    chats: list[list[dict[str, Any]]] = [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}],
        [user("What is this?", picture(circle()))],
    ]
    for messages in chats:
        told = client.post("/tokenize", json={"messages": messages}).json()
        body = {"messages": messages, "max_tokens": 1}
        answer = client.post("/v1/chat/completions", json=body).json()
        assert told["count"] == answer["usage"]["prompt_tokens"]


def test_an_id_outside_of_the_vocabulary_is_refused(client: httpx.Client) -> None:
    """With the field and the bounds."""
    response = client.post("/detokenize", json={"tokens": [1, 10**9]})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tokens"
    assert "is outside of 0 to" in response.json()["error"]["message"]
    assert client.get("/tokenize").status_code == 405
