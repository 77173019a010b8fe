"""`/v1/models`, core to wire. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from periscope.api.wording import clip
from periscope.core import VisionMode
from periscope.errors import ModelNotFound

if TYPE_CHECKING:
    from periscope.core import JSONObject, ModelCard

#: Names that mean the first model.
DEFAULT_NAMES = frozenset({"", "default"})


def find_model(cards: Sequence[ModelCard], name: str) -> ModelCard:
    """The card with this name, else with this alias, else the first one for a default name.

    Raises:
        ModelNotFound: names the models there are.
    """
    by_alias = {alias: card for card in reversed(cards) for alias in card.aliases}
    by_name = by_alias | {card.name: card for card in cards}
    if name in by_name:
        return by_name[name]
    if name in DEFAULT_NAMES and cards:
        return cards[0]
    there_are = ", ".join(card.name for card in cards) or "none"
    raise ModelNotFound(f'There is no model "{clip(name)}". Configured models: {there_are}.', param="model")


def name_of(asked: str, cards: Sequence[ModelCard]) -> str:
    """The model name an answer carries: what the client asked for, or the first model's if it asked for none."""
    return cards[0].name if asked in DEFAULT_NAMES and cards else asked


def encode_models(cards: Sequence[ModelCard]) -> JSONObject:
    """The list, in configured order."""
    return {"object": "list", "data": [encode_model(card) for card in cards]}


def encode_model(card: ModelCard) -> JSONObject:
    """One entry. `architecture` and `status` repeat what llama.cpp's clients look for there."""
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
