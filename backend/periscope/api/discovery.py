"""The shapes in which clients of other servers read what a model sees, holds and can do. Pure.

A client that is not told that a model sees takes the pictures out of its requests. A text model with a captioner sees,
as far as a client can tell. `api/openai/models.py` and `api/anthropic/models.py` have the lists of those two dialects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from periscope.api.openai.models import input_modalities
from periscope.core import ModelKind, ModelState

if TYPE_CHECKING:
    from periscope.core import JSONObject, ModelCard

#: LM Studio knows three states; Zed's reader refuses the whole list over any other.
_LM_STUDIO_STATES = {ModelState.READY: "loaded", ModelState.DRAINING: "loaded", ModelState.LOADING: "loading"}
#: What Codex is told to do with a model of this catalogue. Codex has no instructions for models that it does not know,
#: and refuses a catalogue without any.
_CODEX_INSTRUCTIONS = (
    "You are a coding agent in the Codex CLI, working in a folder on the user's machine. Use the tools that you are "
    "given to read, search, change and run what is there; do not guess what a file holds. Keep changes small and in "
    "the style of the code around them, run the tests that cover them, and keep going until the task is done. Then say "
    "briefly what you changed and what you did not verify."
)
_CODEX_EFFORTS = {"low": "Thinks briefly", "medium": "Thinks as usual", "high": "Thinks at length"}


def lm_studio_v0_model(card: ModelCard) -> JSONObject:
    """One entry of `GET /api/v0/models`, which Zed, Cline, JetBrains and others read.

    Source: https://lmstudio.ai/docs/developer/rest/endpoints, and Zed's crates/lmstudio, whose enums are closed.
    """
    return {
        "id": card.name,
        "object": "model",
        "type": "embeddings" if card.kind is ModelKind.EMBEDDING else "vlm" if card.sees else "llm",
        "publisher": _publisher(card),
        "arch": card.files.model_type,
        "compatibility_type": "mlx",
        "quantization": card.files.quantization,
        "state": _LM_STUDIO_STATES.get(card.state, "not-loaded"),
        "max_context_length": card.files.context_length or card.context_length,
        "loaded_context_length": card.context_length if card.state.is_resident else None,
        "capabilities": ["tool_use"] * _calls_tools(card) + ["vision"] * card.sees,
    }


def lm_studio_v1_model(card: ModelCard) -> JSONObject:
    """One entry of `GET /api/v1/models`, whose numbers must not be null: 0 where one is not known.

    Source: https://lmstudio.ai/docs/developer/rest/list.
    """
    instance = {"id": card.name, "config": {"context_length": card.context_length}}
    quantization = card.files.quantization
    return {
        "type": "embedding" if card.kind is ModelKind.EMBEDDING else "llm",
        "publisher": _publisher(card),
        "key": card.name,
        "display_name": card.name,
        "architecture": card.files.model_type,
        "quantization": None
        if quantization is None
        else {"name": quantization, "bits_per_weight": _bits_of(quantization)},
        "size_bytes": card.files.weights_bytes or 0,
        "params_string": None,
        "loaded_instances": [instance] if card.state.is_resident else [],
        "max_context_length": card.files.context_length or card.context_length or 0,
        "format": "mlx",
        "capabilities": {"vision": card.sees, "trained_for_tool_use": _calls_tools(card)},
        "description": None,
    }


def llama_cpp_props(card: ModelCard, version: str) -> JSONObject:
    """`GET /props` of llama.cpp's server, of one model. Source: llama.cpp's tools/server/README.md."""
    return {
        "default_generation_settings": {"id": 0, "n_ctx": card.context_length, "params": _sampling(card)},
        "total_slots": card.max_running,
        "model_alias": card.name,
        "model_path": card.name,
        "modalities": {"vision": card.sees, "audio": False},
        "chat_template": card.chat_template or "",
        "build_info": f"periscope-{version}",
        "is_sleeping": not card.state.is_resident,
    }


def _sampling(card: ModelCard) -> JSONObject:
    """The defaults under llama.cpp's names."""
    names = {"repetition_penalty": "repeat_penalty", "max_tokens": "n_predict", "thinking_budget": "reasoning_budget"}
    return {names.get(name, name): default.value for name, default in card.sampling.items()}


def codex_catalogue(cards: Sequence[ModelCard]) -> list[JSONObject]:
    """`models` of the answer that Codex reads, the default model first.

    Source: codex-rs/protocol/src/openai_models.rs, `ModelInfo`: the fields that some version of it requires, and those
    that say what the model takes. Others would be promises that are not kept here.
    """
    texts = [card for card in cards if card.kind is ModelKind.TEXT]
    return [_codex_model(card, priority) for priority, card in enumerate(texts)]


def _codex_model(card: ModelCard, priority: int) -> JSONObject:
    has_reasoning = card.has_reasoning is True
    efforts = [{"effort": effort, "description": text} for effort, text in _CODEX_EFFORTS.items()]
    return {
        "slug": card.name,
        "display_name": card.name,
        "description": None,
        "default_reasoning_level": "medium" if has_reasoning else None,
        "supported_reasoning_levels": efforts if has_reasoning else [],
        "shell_type": "default",
        "visibility": "list",
        "minimal_client_version": [0, 0, 0],
        "supported_in_api": True,
        "priority": priority,
        "availability_nux": None,
        "upgrade": None,
        "base_instructions": _CODEX_INSTRUCTIONS,
        "supports_reasoning_summaries": has_reasoning,
        "supports_reasoning_summary_parameter": has_reasoning,
        "support_verbosity": False,
        "default_verbosity": None,
        "apply_patch_tool_type": None,
        "truncation_policy": {"mode": "bytes", "limit": 10_000},
        "supports_parallel_tool_calls": _calls_tools(card),
        "context_window": card.context_length,
        "max_context_window": card.context_length,
        "experimental_supported_tools": [],
        "input_modalities": input_modalities(card),
    }


def _calls_tools(card: ModelCard) -> bool:
    """Whether clients should offer tools: until the model was loaded it is not known, and then they should."""
    return card.has_tools is not False


def _publisher(card: ModelCard) -> str:
    """The owner of the model's repository on the hub, which is its name or one of its aliases."""
    owned = (name for name in (card.name, *card.aliases) if "/" in name)
    return next(owned, "periscope/").partition("/")[0]


def _bits_of(quantization: str) -> int | None:
    """The bits of a quantisation such as `4bit`, `mxfp4` or `bfloat16`; None if its name has no number."""
    digits = "".join(letter for letter in quantization if letter.isdecimal())
    return int(digits) if digits else None
