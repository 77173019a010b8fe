"""What a model sees, holds and can do, in the shapes that clients of other servers read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict

from periscope.core import ModelFiles, ModelKind, ModelState, VisionMode
from tests.api.driving import CARD, HELLO, FakeBackend, client_of, error_of, in_loop

BLIND = replace(
    CARD,
    name="plain",
    aliases=(),
    vision=VisionMode.DISABLED,
    state=ModelState.UNLOADED,
    has_tools=None,
    has_reasoning=None,
    chat_template=None,
    files=ModelFiles(),
)


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class ZedEntry(Strict):
    """`ModelEntry` of Zed's crates/lmstudio: one value out of these enums, and Zed shows no model at all."""

    id: str
    object: str
    type: Literal["llm", "embeddings", "vlm"]
    publisher: str
    arch: str | None = None
    compatibility_type: Literal["gguf", "mlx"]
    quantization: str | None = None
    state: Literal["loaded", "loading", "not-loaded"]
    max_context_length: int | None = None
    loaded_context_length: int | None = None
    capabilities: list[str]


class Effort(Strict):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"]
    description: str


class CodexTruncation(Strict):
    mode: Literal["bytes", "tokens"]
    limit: int


class CodexEntry(Strict):
    """The fields without a default in `ModelInfo` of Codex's protocol crate, of older and newer versions."""

    slug: str
    display_name: str
    description: str | None
    supported_reasoning_levels: list[Effort]
    shell_type: Literal["default", "local", "unified_exec", "disabled", "shell_command"]
    visibility: Literal["list", "hide", "none"]
    supported_in_api: bool
    priority: int
    availability_nux: None
    upgrade: None
    base_instructions: str
    supports_reasoning_summaries: bool
    support_verbosity: bool
    default_verbosity: None
    apply_patch_tool_type: None
    truncation_policy: CodexTruncation
    supports_parallel_tool_calls: bool
    context_window: int | None
    experimental_supported_tools: list[str]
    input_modalities: list[Literal["text", "image"]]


def two() -> FakeBackend:
    backend = FakeBackend()
    backend.cards = (CARD, BLIND)
    return backend


@in_loop
async def test_lm_studio_lists_a_model_with_a_captioner_as_one_that_sees() -> None:
    """`vlm` and `vision`, so that Zed, Cline and JetBrains leave the pictures in; what is run counts, and the most."""
    async with client_of(two()) as client:
        listed = (await client.get("/api/v0/models")).json()
    assert listed["object"] == "list"
    sees, blind = listed["data"]
    assert sees == {
        "id": "org/text",
        "object": "model",
        "type": "vlm",
        "publisher": "org",
        "arch": "qwen3",
        "compatibility_type": "mlx",
        "quantization": "4bit",
        "state": "loaded",
        "max_context_length": 32768,
        "loaded_context_length": 4096,
        "capabilities": ["tool_use", "vision"],
    }
    assert (blind["type"], blind["state"], blind["capabilities"]) == ("llm", "not-loaded", ["tool_use"])
    assert (blind["max_context_length"], blind["loaded_context_length"]) == (4096, None)


@pytest.mark.parametrize("state", ModelState)
@in_loop
async def test_every_state_is_one_that_zed_knows(state: ModelState) -> None:
    """Its enums are closed: an unknown value loses the whole list."""
    backend = FakeBackend()
    backend.cards = tuple(replace(card, state=state, has_tools=has) for card in (CARD, BLIND) for has in (True, False))
    async with client_of(backend) as client:
        entries = (await client.get("/api/v0/models")).json()["data"]
    assert [ZedEntry.model_validate(entry).id for entry in entries] == ["org/text", "org/text", "plain", "plain"]
    assert ["tool_use" in entry["capabilities"] for entry in entries] == [True, False, True, False]


@pytest.mark.parametrize(("name", "found"), [("org/text", "org/text"), ("small", "org/text"), ("plain", "plain")])
@in_loop
async def test_lm_studio_tells_one_model(name: str, found: str) -> None:
    """By name or alias, slashes included; an unknown one is a 404 that names the others."""
    async with client_of(two()) as client:
        assert (await client.get(f"/api/v0/models/{name}")).json()["id"] == found
        missing = await client.get("/api/v0/models/gpt-4")
    assert missing.status_code == 404
    assert error_of(missing)["code"] == "model_not_found"


@in_loop
async def test_lm_studio_newer_list() -> None:
    """`/api/v1/models`: capabilities as booleans, and the loaded instances with their context."""
    async with client_of(two()) as client:
        sees, blind = (await client.get("/api/v1/models")).json()["models"]
    assert sees == {
        "type": "llm",
        "publisher": "org",
        "key": "org/text",
        "display_name": "org/text",
        "architecture": "qwen3",
        "quantization": {"name": "4bit", "bits_per_weight": 4},
        "size_bytes": 2_000_000_000,
        "params_string": None,
        "loaded_instances": [{"id": "org/text", "config": {"context_length": 4096}}],
        "max_context_length": 32768,
        "format": "mlx",
        "capabilities": {"vision": True, "trained_for_tool_use": True},
        "description": None,
    }
    assert (blind["capabilities"]["vision"], blind["loaded_instances"], blind["quantization"]) == (False, [], None)


@in_loop
async def test_lm_studio_clients_chat_below_the_same_base_url() -> None:
    """Zed's base URL ends in `/api/v0`, and its chats go below it."""
    backend = FakeBackend()
    async with client_of(backend) as client:
        reply = await client.post("/api/v0/chat/completions", json=HELLO | {"max_tokens": -1})
    assert reply.status_code == 200
    assert reply.json()["choices"][0]["message"]["content"] == "Hi"


@pytest.mark.parametrize(("query", "name", "sees"), [("", "org/text", True), ("?model=plain", "plain", False)])
@in_loop
async def test_llama_cpp_props(query: str, name: str, sees: bool) -> None:
    """Of the default model, or of the one that a client of a router names."""
    async with client_of(two(), version="1.2.3") as client:
        props = (await client.get(f"/props{query}")).json()
    assert props["model_alias"] == name
    assert props["modalities"] == {"vision": sees, "audio": False}
    assert props["default_generation_settings"]["n_ctx"] == 4096
    assert props["default_generation_settings"]["params"] == {"temperature": 0.6}
    assert props["total_slots"] == 16
    assert props["build_info"] == "periscope-1.2.3"
    assert props["chat_template"] == ("{{ messages }}" if sees else "")
    assert props["is_sleeping"] is not sees


@in_loop
async def test_props_of_an_unknown_model_is_a_404() -> None:
    """In the words of every other route."""
    async with client_of(two()) as client:
        reply = await client.get("/props?model=gpt-4")
    assert (reply.status_code, error_of(reply)["code"]) == (404, "model_not_found")


@in_loop
async def test_codex_gets_its_catalogue_beside_the_list() -> None:
    """It reads `models` and asks with its version; what it requires is there, and the pictures are welcome."""
    async with client_of(two()) as client:
        told: dict[str, Any] = (await client.get("/v1/models?client_version=0.150.0")).json()
        plain = (await client.get("/v1/models")).json()
    assert set(plain) == {"object", "data"}
    assert told["data"] == plain["data"]
    first, second = (CodexEntry.model_validate(entry) for entry in told["models"])
    assert (first.slug, first.context_window, first.input_modalities) == ("org/text", 4096, ["text", "image"])
    assert (second.slug, second.input_modalities) == ("plain", ["text"])
    assert first.priority < second.priority
    assert first.base_instructions


@in_loop
async def test_codex_offers_efforts_of_models_that_reason() -> None:
    """Only of those: an effort that changes nothing would be a promise."""
    backend = FakeBackend()
    backend.cards = (replace(CARD, has_reasoning=True), CARD)
    async with client_of(backend) as client:
        told = (await client.get("/v1/models?client_version=0")).json()["models"]
    reasons, plain = (CodexEntry.model_validate(entry) for entry in told)
    assert [level.effort for level in reasons.supported_reasoning_levels] == ["low", "medium", "high"]
    assert plain.supported_reasoning_levels == []


@in_loop
async def test_claude_desktop_shows_every_text_model() -> None:
    """It drops entries that neither are called like Anthropic's models nor name one of their families."""
    backend = FakeBackend()
    backend.cards = (replace(CARD, aliases=("claude-opus-here",)), BLIND)
    async with client_of(backend) as client:
        told = (await client.get("/v1/models", headers={"anthropic-version": "2023-06-01"})).json()["data"]
    assert [(entry["id"], entry["anthropic_family_tier"], entry.get("is_family_default")) for entry in told] == [
        ("org/text", "sonnet", True),
        ("claude-opus-here", "opus", None),
        ("plain", "sonnet", None),
    ]


@in_loop
async def test_an_embedding_model_is_told_as_one() -> None:
    """So that no client offers it for chats: by its type for LM Studio's, and not at all where only chats are known."""
    backend = FakeBackend()
    backend.cards = (CARD, replace(BLIND, kind=ModelKind.EMBEDDING, has_tools=False))
    async with client_of(backend) as client:
        v0 = (await client.get("/api/v0/models")).json()["data"][1]
        v1 = (await client.get("/api/v1/models")).json()["models"][1]
        codex = (await client.get("/v1/models?client_version=1")).json()["models"]
    assert (ZedEntry.model_validate(v0).type, v0["capabilities"], v1["type"]) == ("embeddings", [], "embedding")
    assert [entry["slug"] for entry in codex] == ["org/text"]


@in_loop
async def test_discovery_needs_the_key() -> None:
    """It names models and their owners, like `/v1/models`."""
    async with client_of(two(), api_key="key") as client:
        for path in ("/api/v0/models", "/api/v0/models/plain", "/api/v1/models", "/props"):
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, headers={"x-api-key": "key"})).status_code == 200
