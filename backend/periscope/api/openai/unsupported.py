"""Fields that would change the answer and are not supported: refused by name. Every other unknown key is ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from periscope.api.errors import UnsupportedParameter
from periscope.api.wording import clip, kind_of
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.openai.schema import ChatCompletionWire

#: field -> values, besides null, that ask for nothing special.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    # OpenAI's own
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    # vLLM's and llama.cpp's
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "structured_outputs": (),
    "grammar": ("",),
    "json_schema": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "add_generation_prompt": (True,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "prompt_logprobs": (0, False),
    "echo": (False,),
    "use_beam_search": (False,),
}


def refuse_unsupported(wire: ChatCompletionWire) -> None:
    """Pure.

    Raises:
        UnsupportedParameter: the first field that asks for what cannot be done.
        InvalidRequest: `n` or `tool_choice` make no sense at all.
    """
    extra = wire.model_extra or {}
    for name, neutral in _NEUTRAL.items():
        value = extra.get(name)
        if value is not None and value not in neutral:
            raise UnsupportedParameter(f"`{name}` is not supported yet; leave it out.", param=name)
    if wire.n is not None and wire.n < 1:
        raise InvalidRequest(f"`n` must be at least 1, got {clip(str(wire.n))}.", param="n")
    if wire.n is not None and wire.n > 1:
        raise UnsupportedParameter("`n` above 1 is not supported yet; send the request as often as needed.", param="n")
    _refuse_tool_choice(wire.tool_choice)


def _refuse_tool_choice(choice: Any) -> None:
    if choice is None or choice in ("auto", "none"):
        return
    if isinstance(choice, dict) or choice in ("required", "any"):
        raise UnsupportedParameter(
            "`tool_choice` can be `auto` or `none`; forcing a call is not supported yet.", param="tool_choice"
        )
    raise InvalidRequest(f"`tool_choice` must be `auto` or `none`, got {kind_of(choice)}.", param="tool_choice")
