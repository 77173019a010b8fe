"""Messages and their token count, wire to core. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from periscope.api.anthropic.conversation import decode_conversation
from periscope.api.anthropic.fields import MESSAGES_FIELDS
from periscope.api.anthropic.schema import MessagesWire, PromptWire
from periscope.api.anthropic.tools import decode_tool_choice, decode_tools
from periscope.api.anthropic.unused import left_out_tools, unused_fields
from periscope.api.bounds import refuse_too_many
from periscope.api.call_ids import pair_calls
from periscope.api.fields import refuse_fields
from periscope.api.prefill import with_open_answer
from periscope.api.schema_nulls import without_nulls
from periscope.api.thinking import EFFORT_BUDGETS, budget_of_thinking
from periscope.api.validation import validate
from periscope.api.wording import kind_of
from periscope.core import (
    GenerationParams,
    GenerationRequest,
    JSONObject,
    OutputSpec,
    ResponseFormat,
    Role,
    ToolChoiceMode,
)
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.anthropic.schema import FormatWire

#: `thinking.type` -> whether the model reasons before it answers.
_THINKING: Mapping[str, bool] = {"enabled": True, "adaptive": True, "disabled": False, "between_tools": False}


@dataclass(frozen=True, slots=True)
class MessagesCall:
    """A decoded request, and the form of its answer.

    Attributes:
        shows_thinking: the client asked for the model's reasoning.
        unused: places of what was accepted and is not used.
        left_out: places of tools that the client does not run, which are not offered; among `unused`.
    """

    request: GenerationRequest
    is_stream: bool
    shows_thinking: bool
    unused: tuple[str, ...]
    left_out: tuple[str, ...]


def decode(body: Any, request_id: str) -> MessagesCall:
    """A parsed body of POST /v1/messages.

    Raises:
        InvalidRequest: names the field, what was expected and what came.
    """
    refuse_too_many(body)
    wire = validate(MessagesWire, body)
    return MessagesCall(
        request=_request(wire, request_id, _params(wire)),
        is_stream=bool(wire.stream),
        shows_thinking=_thinks(wire) and wire.thinking is not None and wire.thinking.display != "omitted",
        unused=tuple(unused_fields(wire)),
        left_out=tuple(left_out_tools(wire)),
    )


def decode_prompt(body: Any, request_id: str) -> GenerationRequest:
    """A parsed body of POST /v1/messages/count_tokens.

    Raises:
        InvalidRequest: as `decode`.
    """
    refuse_too_many(body)
    return replace(_request(validate(PromptWire, body), request_id, GenerationParams()), counts_only=True)


def _request(wire: PromptWire, request_id: str, params: GenerationParams) -> GenerationRequest:
    refuse_fields(wire.model_extra, MESSAGES_FIELDS)
    messages, continues = tuple(decode_conversation(wire.system, wire.messages)), False
    if messages[-1].role is Role.ASSISTANT:
        messages, continues = with_open_answer(messages, f"messages[{len(wire.messages) - 1}]")
    tools = decode_tools(wire.tools or ())
    choice = decode_tool_choice(wire.tool_choice, tools)
    offered = () if choice.mode is ToolChoiceMode.NONE else tools
    return GenerationRequest(
        id=request_id,
        model=wire.model or "",
        messages=pair_calls(messages),
        continues=continues,
        params=params,
        output=OutputSpec(offered, choice, _response_format(wire)),
        template_kwargs=_template_kwargs(wire),
    )


def _params(wire: MessagesWire) -> GenerationParams:
    try:
        return GenerationParams(
            max_tokens=wire.max_tokens,
            temperature=wire.temperature,
            top_p=wire.top_p,
            top_k=wire.top_k,
            stop=tuple(wire.stop_sequences or ()),
            thinking_budget=_thinking_budget(wire),
        )
    except InvalidRequest as error:
        if error.param != "stop":
            raise
        told = error.message.replace("`stop`", "`stop_sequences`")
        raise InvalidRequest(told, param="stop_sequences") from None


def _response_format(wire: PromptWire) -> ResponseFormat | None:
    """The schema that the answer must fit; the beta's field counts only if the newer one is not there."""
    new = None if wire.output_config is None else wire.output_config.format
    if new is not None:
        return _schema(new, "output_config.format")
    return None if wire.output_format is None else _schema(wire.output_format, "output_format")


def _schema(wire: FormatWire, path: str) -> ResponseFormat:
    if wire.type != "json_schema":
        raise InvalidRequest(f"`{path}.type` must be json_schema, got {kind_of(wire.type)}.", param=f"{path}.type")
    return ResponseFormat(without_nulls(wire.schema_), f"{path}.schema")


def _thinks(wire: PromptWire) -> bool:
    """Whether the client asked for thinking; a request without the field is one without thinking.

    Raises:
        InvalidRequest: there is no such type.
    """
    if wire.thinking is None:
        return False
    if wire.thinking.type not in _THINKING:
        raise InvalidRequest(
            f"`thinking.type` must be one of {', '.join(_THINKING)}, got {kind_of(wire.thinking.type)}.",
            param="thinking.type",
        )
    return _THINKING[wire.thinking.type]


def _thinking_budget(wire: PromptWire) -> int | None:
    """The tokens that thinking may take; None = without bound, or as models.yaml has it.

    Raises:
        InvalidRequest: it is out of bounds.
    """
    if wire.thinking is None:
        return None
    budget, effort = (
        budget_of_thinking(wire.thinking),
        None if wire.output_config is None else wire.output_config.effort,
    )
    return EFFORT_BUDGETS[effort] if budget is None and effort is not None else budget


def _template_kwargs(wire: PromptWire) -> JSONObject:
    """The variables for the chat template."""
    told: JSONObject = {"enable_thinking": _thinks(wire)}
    if wire.output_config is not None and wire.output_config.effort is not None:
        told["reasoning_effort"] = wire.output_config.effort
    return told
