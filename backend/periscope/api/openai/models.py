"""`/v1/models`, core to wire. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from periscope.core import VisionMode

if TYPE_CHECKING:
    from periscope.core import JSONObject, ModelCard


def encode_models(cards: Sequence[ModelCard]) -> JSONObject:
    """The list of models, in configured order."""
    return {"object": "list", "data": [encode_model(card) for card in cards]}


def encode_model(card: ModelCard) -> JSONObject:
    """One model. `architecture` and `status` are fields that llama.cpp's clients read."""
    modalities = ["text"] if card.vision is VisionMode.DISABLED else ["text", "image"]
    return {
        "id": card.name,
        "object": "model",
        "created": card.created,
        "owned_by": "periscope",
        "aliases": list(card.aliases),
        "context_length": card.context_length,
        "capabilities": {
            "vision": "none" if card.vision is VisionMode.DISABLED else card.vision,
            "tools": card.has_tools,
            "reasoning": card.has_reasoning,
            "batched": card.is_batched,
        },
        "input_modalities": modalities,
        "architecture": {"input_modalities": modalities, "output_modalities": ["text"]},
        "loaded": card.is_loaded,
        "state": card.state,
        "status": {"value": card.state},
    }
