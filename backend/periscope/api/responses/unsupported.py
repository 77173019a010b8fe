"""Fields of the Responses API that this server does not use: those that would change the answer are refused. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from periscope.api.errors import UnsupportedParameter
from periscope.api.wording import clip

if TYPE_CHECKING:
    from periscope.api.responses.schema import PromptWire

_OURS: Final = "leave it out"
#: field -> (values, besides null, that are the default behaviour and so accepted; what to do instead).
_REFUSED: Final[Mapping[str, tuple[tuple[Any, ...], str]]] = {
    "conversation": ((), "this server keeps no conversations; send `previous_response_id`, or the items in `input`"),
    "prompt": ((), "this server keeps no prompts; send the text in `instructions` or `input`"),
    "background": ((False,), "responses are made while the client waits; send `stream: true` to follow a long one"),
    "moderation": ((), _OURS),
    # Fields of chat completions
    "messages": (([],), "send the conversation in `input`"),
    "response_format": ((), "send it as `text.format`"),
    "max_tokens": ((), "send it as `max_output_tokens`"),
    "max_completion_tokens": ((), "send it as `max_output_tokens`"),
    "functions": (([],), "send them in `tools`"),
    "n": ((1,), "send the request several times"),
    "logprobs": ((False,), 'send `include: ["message.output_text.logprobs"]`'),
    "logit_bias": (({},), _OURS),
    "chat_template_kwargs": (({},), "send `reasoning.effort`, or set them in models.yaml"),
}
#: Fields that change no answer: who asks, who pays, what may be cached, and how the stream is padded.
_WITHOUT_EFFECT: Final = frozenset(
    {
        *("service_tier", "stream_options", "prompt_cache_retention", "prompt_cache_options", "context_management"),
        *("access_programs", "client_metadata"),
    }
)


def refuse_unsupported(wire: PromptWire) -> None:
    """Refuse fields that are not supported.

    Raises:
        UnsupportedParameter: names the first such field, and what to do instead.
    """
    told = wire.model_dump(include={"background"}) | (wire.model_extra or {})
    for name, (neutral, way_out) in _REFUSED.items():
        if (value := told.get(name)) is not None and value not in neutral:
            raise UnsupportedParameter(f"`{name}` is not supported: {way_out}.", param=name)


def unused_fields(wire: PromptWire) -> Iterator[str]:
    """The places of what is accepted and not used although it might matter, for a line in the log."""
    for name in wire.model_extra or {}:
        if name not in _REFUSED and name not in _WITHOUT_EFFECT:
            yield clip(name)
    if wire.text is not None and wire.text.verbosity not in (None, "medium"):
        yield "text.verbosity"
    if getattr(wire, "max_tool_calls", None) is not None:
        yield "max_tool_calls (it bounds tools of OpenAI's, and none is run)"
