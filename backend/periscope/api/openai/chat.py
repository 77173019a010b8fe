"""Chat completions, wire to core: `decode` makes a `GenerationRequest` of OpenAI's request. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from periscope.api.bounds import refuse_too_many
from periscope.api.call_ids import pair_calls
from periscope.api.content_parts import decode_content, decode_reasoning
from periscope.api.custom_tools import custom_arguments
from periscope.api.openai.continuing import asks_to_continue
from periscope.api.openai.fields import CHAT_FIELDS
from periscope.api.openai.functions import decode_functions
from periscope.api.openai.params import decode_params, wants_usage
from periscope.api.openai.prediction import decode_prediction
from periscope.api.openai.response_format import decode_response_format
from periscope.api.openai.schema import ChatCompletionWire
from periscope.api.openai.tool_choice import decode_tool_choice, decode_tools
from periscope.api.openai.unsupported import refuse_unread, refuse_unsupported, unused_fields
from periscope.api.prefill import with_open_answer
from periscope.api.thinking import thinking_budget, thinking_variables
from periscope.api.tool_blocks import decode_tool_uses, results_apart
from periscope.api.validation import validate
from periscope.api.wording import kind_of
from periscope.core import (
    GenerationParams,
    GenerationRequest,
    Message,
    Part,
    Role,
    TextPart,
    ToolCall,
)
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.openai.schema import FunctionCallWire, MessageWire, ToolCallWire
    from periscope.api.toolset import Toolset
    from periscope.core import ToolChoice

_ROLES: Mapping[str, Role] = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,  # the result of a `function_call`
}


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A decoded request, and the form of its answer.

    Attributes:
        has_usage: the client asked for the usage chunk of a stream.
        unused: places of what was accepted and is not used.
        left_out: places of tools that the client does not run, which are not offered; among `unused`.
        custom_tools: names of tools whose calls are told as calls of custom tools.
        answers_as: the custom tool of which the whole answer is a call.
        has_functions: the client sent `functions`, so its call is told as `function_call`.
    """

    request: GenerationRequest
    is_stream: bool
    has_usage: bool
    unused: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    custom_tools: frozenset[str] = frozenset()
    answers_as: str | None = None
    has_functions: bool = False


def decode(body: Any, request_id: str) -> ChatCall:
    """A parsed body as a request.

    Raises:
        InvalidRequest: names the field, what was expected and what came.
    """
    refuse_too_many(body)
    wire = validate(ChatCompletionWire, body)
    refuse_unsupported(wire)
    has_usage = wants_usage(wire)
    functions = decode_functions(wire)
    tools, choice = functions or _tools(wire)
    forced = tools.forced_custom(choice)
    messages, continues = tuple(_messages(wire.messages)), False
    if asks_to_continue(wire):
        messages, continues = with_open_answer(messages, f"messages[{len(wire.messages) - 1}]")
    request = GenerationRequest(
        id=request_id,
        model=wire.model or "",
        messages=pair_calls(messages),
        continues=continues,
        params=_params(wire) if forced is None else replace(_params(wire), stop=()),  # it acts on no call
        output=tools.output(choice, decode_response_format(wire)),
        num_choices=1 if wire.n is None else wire.n,
        template_kwargs=thinking_variables(wire, wire.chat_template_kwargs or {}),
        prediction=decode_prediction(wire.prediction),
    )
    return ChatCall(
        request=request,
        is_stream=bool(wire.stream),
        has_usage=has_usage,
        unused=(*unused_fields(wire, CHAT_FIELDS), *tools.left_out, *tools.unenforced_formats(choice)),
        left_out=tools.left_out,
        custom_tools=frozenset(tools.customs),
        answers_as=None if forced is None else forced.tool.name,
        has_functions=functions is not None,
    )


def _tools(wire: ChatCompletionWire) -> tuple[Toolset, ToolChoice]:
    tools = decode_tools(wire.tools or ())
    return tools, decode_tool_choice(wire.tool_choice, tools, is_parallel=wire.parallel_tool_calls is not False)


def _params(wire: ChatCompletionWire) -> GenerationParams:
    """The sampling parameters. `max_completion_tokens` is the newer name of `max_tokens` and wins over it."""
    is_renamed = wire.max_completion_tokens is not None
    max_tokens = wire.max_completion_tokens if is_renamed else wire.max_tokens
    try:
        params = decode_params(
            wire, max_tokens=max_tokens, logprobs=bool(wire.logprobs), top_logprobs=wire.top_logprobs or 0
        )
    except InvalidRequest as error:
        if error.param != "max_tokens" or not is_renamed:
            raise
        told = error.message.replace("max_tokens", "max_completion_tokens")
        raise InvalidRequest(told, param="max_completion_tokens") from None
    budget = thinking_budget(wire, wire.chat_template_kwargs or {})
    return params if budget is None else replace(params, thinking_budget=budget)


def _messages(wires: Sequence[MessageWire]) -> Iterator[Message]:
    called: set[str] = set()  # ids of calls in content parts, whose results are parts, too
    for i, wire in enumerate(wires):
        path = f"messages[{i}]"
        message = _message(wire, path)
        if message.role is Role.ASSISTANT and (calls := decode_tool_uses(wire.content, f"{path}.content")):
            called |= {call.id for call in calls if call.id}
            message = replace(message, tool_calls=(*message.tool_calls, *calls))
        yield from results_apart(message, wire.content, f"{path}.content", called)


def _message(wire: MessageWire, path: str) -> Message:
    role = _role(wire.role, f"{path}.role")
    refuse_unread(wire, path)
    for name, call in (("tool_calls", wire.tool_calls), ("function_call", wire.function_call)):
        if call and role is not Role.ASSISTANT:
            raise InvalidRequest(f"`{path}.{name}` may only stand in assistant messages.", param=f"{path}.{name}")
    return Message(
        role=role,
        parts=_parts(wire, role, f"{path}.content"),
        tool_calls=tuple(_tool_calls(wire, path)),
        tool_call_id=wire.tool_call_id or "" if role is Role.TOOL else None,
        name=wire.name or (wire.tool_name if role is Role.TOOL else None),
        reasoning=_reasoning(wire, role, path),
    )


def _role(name: str, path: str) -> Role:
    if name not in _ROLES:
        raise InvalidRequest(f"`{path}` must be one of {', '.join(_ROLES)}, got {kind_of(name)}.", param=path)
    return _ROLES[name]


def _parts(wire: MessageWire, role: Role, path: str) -> tuple[Part, ...]:
    """The content parts. Content may be empty beside calls and in tool results, but not in a user's message."""
    if wire.content is None and role in (Role.ASSISTANT, Role.TOOL):
        return (TextPart(wire.refusal),) if wire.refusal else ()
    return decode_content(wire.content, path, is_assistant=role is Role.ASSISTANT)


def _reasoning(wire: MessageWire, role: Role, path: str) -> str | None:
    """The reasoning of the message, under any of its field names. If it is there twice, the plain text counts."""
    plain = wire.reasoning_content or wire.reasoning or wire.thinking
    if plain or role is not Role.ASSISTANT:
        return plain or None
    listed = {"content": wire.content, "reasoning_details": wire.reasoning_details}
    told = (
        decode_reasoning(value, f"{path}.{name}")
        for name, value in (listed | {"thinking_blocks": wire.thinking_blocks}).items()
    )
    return next(filter(None, told), None)


def _tool_calls(wire: MessageWire, path: str) -> Iterator[ToolCall]:
    if wire.function_call is not None:
        yield ToolCall("", wire.function_call.name or "", _arguments_text(wire.function_call))
    for i, call in enumerate(wire.tool_calls or ()):
        yield _tool_call(call, f"{path}.tool_calls[{i}]")


def _tool_call(wire: ToolCallWire, path: str) -> ToolCall:
    if wire.custom is not None:
        return ToolCall(wire.id or "", wire.custom.name or "", custom_arguments(wire.custom.input or ""))
    if wire.function is None:
        kind = "custom" if wire.type == "custom" else "function"
        raise InvalidRequest(f"`{path}.{kind}` is missing.", param=f"{path}.{kind}")
    return ToolCall(wire.id or "", wire.function.name or "", _arguments_text(wire.function))


def _arguments_text(wire: FunctionCallWire) -> str:
    """The arguments as text, which stays as the model wrote it, even if it is not JSON: clients cannot fix history."""
    if isinstance(wire.arguments, dict):
        return json.dumps(wire.arguments, ensure_ascii=False)
    return wire.arguments or "{}"
