"""Fields that would change the answer and are not supported: refused by name. Every other unknown key is ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from periscope.api.errors import UnsupportedParameter
from periscope.api.wording import clip

if TYPE_CHECKING:
    from periscope.api.openai.schema import ChatCompletionWire

#: field -> values, besides null, that ask for nothing special.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    # OpenAI's own
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    # vLLM's and llama.cpp's
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "grammar": ("",),
    "chat_template": (),
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

#: Arguments of the code around a chat template, which are no variables of the template.
_NO_TEMPLATE_VARIABLES = frozenset(
    {
        *("self", "messages", "conversation", "tools", "chat_template", "tokenize", "tokenizer_kwargs"),
        *("add_generation_prompt", "continue_final_message", "sanitize_control_tokens"),
        *("padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
    }
)


def refuse_unsupported(wire: ChatCompletionWire) -> None:
    """Pure.

    Raises:
        UnsupportedParameter: the first field that asks for what cannot be done.
    """
    extra = wire.model_extra or {}
    for name, neutral in _NEUTRAL.items():
        value = extra.get(name)
        if value is not None and value not in neutral:
            raise _unsupported(name)
    if wire.structured_outputs is not None:
        for name, value in (wire.structured_outputs.model_extra or {}).items():
            if value not in (None, False):
                raise _unsupported(f"structured_outputs.{clip(name)}")
    for name in wire.chat_template_kwargs or {}:
        if name in _NO_TEMPLATE_VARIABLES:
            raise _unsupported(f"chat_template_kwargs.{name}")


def _unsupported(param: str) -> UnsupportedParameter:
    return UnsupportedParameter(f"`{param}` is not supported; leave it out.", param=param)
