"""`/v1/models` in Anthropic's shape, and which model answers for a name of Anthropic's. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from periscope.core import DEFAULT_NAME, ModelKind, find_model

if TYPE_CHECKING:
    from periscope.core import JSONObject, ModelCard

_CLAUDE = "claude"
#: Of Anthropic's models. Claude Desktop shows no entry without one of them whose id does not look like Anthropic's.
_TIERS = ("opus", "haiku", "sonnet")


def model_for(asked: str, cards: Sequence[ModelCard], stand_in: str | None) -> str:
    """The name of the model that answers: the one asked for, or the stand-in for a model of Anthropic's.

    Args:
        cards: the configured models, whose names and aliases go first.
        stand_in: `server.anthropic_model`; None = the default model.
    """
    if not asked.startswith(_CLAUDE) or find_model(cards, asked) is not None:
        return asked
    return stand_in or DEFAULT_NAME


def encode_models(cards: Sequence[ModelCard]) -> JSONObject:
    """The list of models, in one page. Aliases that begin with `claude` have entries: Claude Code shows no others.

    Embedding models are left out, because clients of Anthropic's API can do nothing with them.
    """
    texts = [card for card in cards if card.kind is ModelKind.TEXT]
    entries = [encode_model(card, name) for card in texts for name in _names(card)]
    for entry in entries[:1]:  # the default model by its own name
        entry["is_family_default"] = True
    return {
        "data": entries,
        "has_more": False,
        "first_id": entries[0]["id"] if entries else None,
        "last_id": entries[-1]["id"] if entries else None,
    }


def encode_model(card: ModelCard, name: str) -> JSONObject:
    """One model under one of its names."""
    return {
        "type": "model",
        "id": name,
        "display_name": card.name,
        "anthropic_family_tier": next((tier for tier in _TIERS if tier in name.lower()), _TIERS[-1]),
        "created_at": datetime.fromtimestamp(card.created, UTC).isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
        "max_input_tokens": card.context_length,
        "max_tokens": card.context_length,
        "capabilities": _capabilities(card),
    }


def _names(card: ModelCard) -> Iterator[str]:
    yield card.name
    yield from (alias for alias in card.aliases if alias.startswith(_CLAUDE))


def _capabilities(card: ModelCard) -> JSONObject:
    """Anthropic's capabilities: what a request may hold here without being refused."""
    sees = _support(is_there=card.sees)
    yes, no = _support(is_there=True), _support(is_there=False)
    return {
        "batch": no,
        "citations": no,
        "code_execution": no,
        "context_management": no,
        "effort": dict.fromkeys(("low", "medium", "high", "xhigh", "max"), yes) | yes,
        "image_input": sees,
        "pdf_input": yes,  # models without vision read the text
        "server_tools": no | {"code_execution": no, "web_search": no},
        "structured_outputs": yes,
        "thinking": _support(is_there=card.has_reasoning is not False)
        | {"types": dict.fromkeys(("adaptive", "between_tools", "disabled", "enabled"), yes)},
    }


def _support(*, is_there: bool) -> JSONObject:
    return {"supported": is_there}
