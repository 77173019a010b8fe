"""`/v1/models`, core to wire. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from periscope.core import ModelKind, VisionMode

if TYPE_CHECKING:
    from periscope.core import JSONObject, ModelCard


_CONTEXT_KEYS = ("context_length", "max_model_len", "context_window", "max_context_length")


def encode_models(cards: Sequence[ModelCard]) -> JSONObject:
    """The list of models, in configured order."""
    return {"object": "list", "data": [encode_model(card) for card in cards]}


def encode_model(card: ModelCard) -> JSONObject:
    """One model. OpenAI's own fields say nothing of it, so the clients of each server read the fields of that server.

    `context_length` OpenRouter's, `max_model_len` vLLM's, `context_window` Groq's, `max_context_length` Mistral's and
    LM Studio's; `meta`, `architecture` and `status` those of llama.cpp.
    """
    modalities = input_modalities(card)
    output = "embeddings" if card.kind is ModelKind.EMBEDDING else "text"
    return {
        "id": card.name,
        "object": "model",
        "created": card.created,
        "owned_by": "periscope",
        "aliases": list(card.aliases),
        **dict.fromkeys(_CONTEXT_KEYS, card.context_length),
        "meta": {"n_ctx": card.context_length, "n_ctx_train": card.files.context_length or card.context_length},
        "kind": card.kind,
        "embedding_size": card.embedding_size,
        "kv_bits": card.kv_bits,
        "capabilities": {
            "vision": "none" if card.vision is VisionMode.DISABLED else card.vision,
            "tools": card.has_tools,
            "reasoning": card.has_reasoning,
            "batched": card.is_batched,
        },
        "input_modalities": modalities,
        "sampling": {name: asdict(default) for name, default in card.sampling.items()},
        "architecture": {"input_modalities": modalities, "output_modalities": [output]},
        "loaded": card.is_loaded,
        "state": card.state,
        "error": card.error,
        "status": {"value": card.state},
    }


def input_modalities(card: ModelCard) -> list[str]:
    """What a request to the model may hold. A text model with a captioner takes images: that is what it is for."""
    return ["text", "image"] if card.sees else ["text"]
