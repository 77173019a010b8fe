"""The `prompt` of completions, wire to core: a text or token ids, one or several. Pure."""

from __future__ import annotations

from typing import Any, Final

from periscope.api.wording import kind_of
from periscope.core import MAX_COMPLETIONS, TextPrompt
from periscope.errors import InvalidRequest

_EXPECTED: Final = "a string, a list of strings, a list of token ids or a list of such lists"


def decode_prompts(prompt: Any, suffix: str | None, *, adds_special_tokens: bool) -> tuple[TextPrompt, ...]:
    """The prompts in order.

    Raises:
        InvalidRequest: it is none of the four forms, it is empty, or there are too many.
    """
    sources = [("prompt", prompt)]
    if isinstance(prompt, list) and not _is_token_id(prompt[0] if prompt else 0):
        if len(prompt) > MAX_COMPLETIONS:
            raise InvalidRequest(
                f"`prompt` holds {len(prompt)} prompts; at most {MAX_COMPLETIONS} are taken. Send them in several "
                "requests.",
                param="prompt",
            )
        sources = [(f"prompt[{i}]", each) for i, each in enumerate(prompt)]
    return tuple(TextPrompt(_source(each, param), suffix, adds_special_tokens, param) for param, each in sources)


def _source(value: Any, param: str) -> str | tuple[int, ...]:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        expected = _EXPECTED if param == "prompt" else "a string or a list of token ids"
        raise InvalidRequest(f"`{param}` must be {expected}, got {kind_of(value)}.", param=param)
    if not value:
        raise InvalidRequest(f"`{param}` is empty: it must hold at least one token.", param=param)
    for i, token_id in enumerate(value):
        if not _is_token_id(token_id):
            raise InvalidRequest(f"`{param}[{i}]` must be a token id, got {kind_of(token_id)}.", param=f"{param}[{i}]")
    return tuple(value)


def _is_token_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
