"""`/v1/embeddings` on a real server with OpenAI's own client, over a tiny BERT with random weights."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import numpy as np
import openai
import pytest

from tests.e2e.conftest import RunningServer, start_server
from tests.engine.embedding.checkpoints import SIZE, write_model

TEXTS = ["a red circle", "a circle that is red", "completely different words, and many more of them"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A text model and two embedding models; the first is recognised by its files."""
    folder = tmp_path_factory.mktemp("embeddings")
    write_model(folder / "tiny-bert", "bert")
    write_model(folder / "tiny-qwen", "qwen3", pooling="lasttoken", prefix="model.")
    (folder / "models.yaml").write_text(
        "models:\n- {name: demo, local_path: embedded:text, preload: true}\n"
        "- {name: bert, local_path: ./tiny-bert, aliases: [text-embedding-3-small]}\n"
        "- {name: qwen, local_path: ./tiny-qwen, kind: embedding, params: {matryoshka: true}}\n"
    )
    running = start_server(folder / "models.yaml", log=folder / "server.log")
    yield running
    assert running.stop() == 0


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


def test_the_sdk_gets_vectors(client: openai.OpenAI) -> None:
    """It asks for base64 by itself; as floats they are the same, alone and in company, by name and by alias."""
    made = client.embeddings.create(model="text-embedding-3-small", input=TEXTS)
    vectors = np.array([each.embedding for each in made.data], np.float32)
    assert vectors.shape == (3, SIZE)
    assert made.model == "text-embedding-3-small"
    assert made.usage.prompt_tokens == made.usage.total_tokens == sum(len(text) + 2 for text in TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        alone = client.embeddings.create(model="bert", input=text, encoding_format="float").data[0].embedding
        np.testing.assert_allclose(np.array(alone, np.float32), vector, atol=1e-5)


def test_both_encodings_hold_the_same_numbers(server: RunningServer) -> None:
    """To the last bit. A request that names no model gets the first embedding model, whose name is in the answer."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        asked = [{"input": TEXTS[0], "encoding_format": each} for each in ("float", "base64")]
        floats, packed = (http.post("/v1/embeddings", json=body).json() for body in asked)
    assert floats["model"] == "bert"
    unpacked = np.frombuffer(base64.b64decode(packed["data"][0]["embedding"]), "<f4")
    assert unpacked.tolist() == floats["data"][0]["embedding"]


def test_dimensions_are_cut_where_the_model_was_trained_for_it(client: openai.OpenAI) -> None:
    """Else the error says which setting to set."""
    (full,) = client.embeddings.create(model="qwen", input="abc").data
    (cut,) = client.embeddings.create(model="qwen", input="abc", dimensions=8).data
    part = np.array(full.embedding[:8])
    np.testing.assert_allclose(cut.embedding, part / np.linalg.norm(part), atol=1e-5)
    with pytest.raises(openai.BadRequestError, match="matryoshka: true") as caught:
        client.embeddings.create(model="bert", input="abc", dimensions=8)
    assert caught.value.param == "dimensions"


def test_the_wrong_kind_of_model_is_told_which_is_right(client: openai.OpenAI) -> None:
    """A text model asked for vectors, an embedding model asked to answer, and one that is not there."""
    with pytest.raises(openai.BadRequestError, match=r"Model demo answers .* such as bert"):
        client.embeddings.create(model="demo", input="a")
    with pytest.raises(openai.BadRequestError, match=r"only embeds texts, at POST /v1/embeddings.* such as demo"):
        client.chat.completions.create(model="bert", messages=[{"role": "user", "content": "Hello!"}])
    with pytest.raises(openai.NotFoundError, match="Known: bert, qwen"):
        client.embeddings.create(model="ada", input="a")
    with pytest.raises(openai.BadRequestError, match=r"has 400 tokens.* takes 128") as caught:
        client.embeddings.create(model="bert", input=[[4], [5] * 400])
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input[1]")


def test_models_and_status_tell_the_kind(client: openai.OpenAI, server: RunningServer) -> None:
    """In `/v1/models` with the size of vectors once it is known, in the status, and not to Anthropic's clients."""
    client.embeddings.create(model="bert", input="a")
    cards = {card.id: card.model_dump() for card in client.models.list()}
    assert [card["kind"] for card in cards.values()] == ["text", "embedding", "embedding"]
    assert (cards["bert"]["embedding_size"], cards["bert"]["context_length"]) == (SIZE, 128)
    with httpx.Client(base_url=server.url, timeout=60) as http:
        rows = {row["id"]: row for row in http.get("/api/status").json()["models"]}
        assert (rows["bert"]["kind"], rows["bert"]["state"], rows["demo"]["default"]) == ("embedding", "ready", True)
        assert rows["bert"]["held_bytes"] > rows["bert"]["weights_bytes"] > 0
        anthropic = http.get("/v1/models", headers={"anthropic-version": "2023-06-01"}).json()
        assert [entry["id"] for entry in anthropic["data"]] == ["demo"]
        refused = http.post("/v1/models/select", json={"model": "bert"})
        assert (refused.status_code, "only embeds texts" in refused.text) == (400, True)
