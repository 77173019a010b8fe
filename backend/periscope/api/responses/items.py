"""Input items, wire to core: messages, calls, their results and reasoning become a conversation. Pure.

The items of one answer (reasoning, message, calls) become one message again, so that the prompt of the next turn
begins as this one's prompt and answer did, and its cached prefix holds.

Items of tools that OpenAI runs become text or a call with its result, as far as they hold something that a model can
read. Items that hold nothing, and unknown ones, are left out and noted: they never end a conversation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from periscope.api.content import image_url_part, string_at, wrong_type
from periscope.api.content_parts import decode_content, decode_reasoning
from periscope.api.custom_tools import custom_arguments
from periscope.api.responses.mcp_tools import ApprovedTool, ServersTool, listed_of, server_tool_name
from periscope.api.responses.schema import ToolWire
from periscope.api.responses.tools import NamedTools, decode_tools, joined, name_for_model
from periscope.api.validation import Wire, validate
from periscope.api.wording import clip, kind_of
from periscope.core import ListedTool, Message, Part, Role, TextPart, ToolCall
from periscope.errors import InvalidRequest
from periscope.serving.server_tools import ApprovedCall

if TYPE_CHECKING:
    from periscope.api.responses.sealed import ReasoningSeal
    from periscope.core import JSONObject

_APPROVAL: Final = "mcp_approval_response"
_ROLES: Mapping[str, Role] = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
}


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a conversation.

    Attributes:
        path: where it stands in the request, for errors (`input[3]`).
    """

    path: str
    value: JSONObject


@dataclass(slots=True)
class Conversation:
    """What items have become.

    Attributes:
        seal: opens the reasoning that clients carry.
        tools: that items have added.
        left_out: places of items that are not used.
        lists: the tools of MCP servers, as they were listed last.
        waiting: calls that the client has to agree to, by the id of the request for it.
        answered: ids of such requests that have an answer somewhere in the conversation.
        approved: calls that the client has agreed to, and that have not been run yet.
    """

    seal: ReasoningSeal
    messages: list[Message] = field(default_factory=list)
    tools: NamedTools = field(default_factory=NamedTools)
    left_out: list[str] = field(default_factory=list)
    lists: dict[str, tuple[ListedTool, ...]] = field(default_factory=dict)
    waiting: dict[str, ApprovedTool] = field(default_factory=dict)
    answered: frozenset[str] = frozenset()
    approved: list[ApprovedTool] = field(default_factory=list)

    def answers(self) -> Message | None:
        """The message of the assistant that is still being put together, if the last item belonged to one."""
        last = self.messages[-1] if self.messages else None
        return last if last is not None and last.role is Role.ASSISTANT else None


class _ToolsWire(Wire):
    tools: list[ToolWire] | None = None


def decode_items(items: Iterable[Item], seal: ReasoningSeal) -> Conversation:
    """The items in order.

    Raises:
        InvalidRequest: names the item and what is wrong with it.
    """
    items = list(items)
    answers = (item.value.get("approval_request_id") for item in items if item.value.get("type") == _APPROVAL)
    conversation = Conversation(seal, answered=frozenset(each for each in answers if isinstance(each, str)))
    for item in items:
        kind = item.value.get("type") or ("message" if "role" in item.value else None)
        decode = _KINDS.get(kind) if isinstance(kind, str) else None
        if decode is not None:
            decode(conversation, item)
        else:
            _unknown(conversation, item, kind)
    return conversation


def _unknown(conversation: Conversation, item: Item, kind: Any) -> None:
    if not isinstance(kind, str) or "content" in item.value:
        raise InvalidRequest(
            f"`{item.path}.type` must be one of {', '.join(_KINDS)}, got {kind_of(kind)}.", param=f"{item.path}.type"
        )
    _left_out(conversation, item)


def _left_out(conversation: Conversation, item: Item) -> None:
    conversation.left_out.append(f"{item.path} ({clip(str(item.value.get('type')))})")


# --- messages ------------------------------------------------------------------------------------------------------


def _message(conversation: Conversation, item: Item) -> None:
    name = item.value.get("role")
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        param = f"{item.path}.role"
        raise InvalidRequest(f"`{param}` must be one of {', '.join(_ROLES)}, got {kind_of(name)}.", param=param)
    content, path = item.value.get("content"), f"{item.path}.content"
    if role is not Role.ASSISTANT:
        conversation.messages.append(Message(role, decode_content(content, path)))
        return
    parts = () if content is None else decode_content(content, path, is_assistant=True)
    _say(conversation, parts, decode_reasoning(content, path))


def _say(conversation: Conversation, parts: tuple[Part, ...], reasoning: str = "") -> None:
    """Add text of the assistant's, to the reasoning before it if there is any."""
    last = conversation.answers()
    if last is not None and not last.parts and not last.tool_calls and not (reasoning and last.reasoning):
        conversation.messages[-1] = replace(last, parts=parts, reasoning=last.reasoning or reasoning or None)
    else:
        conversation.messages.append(Message(Role.ASSISTANT, parts, reasoning=reasoning or None))


def _reasoning(conversation: Conversation, item: Item) -> None:
    """What the model has thought before it wrote the items behind this one. The sealed text is the whole of it."""
    sealed = item.value.get("encrypted_content")
    opened = conversation.seal.opened(sealed) if isinstance(sealed, str) else None
    listed = ((f"{item.path}.{key}", item.value.get(key) or []) for key in ("content", "summary"))
    told = (decode_reasoning(_as_reasoning(parts, path), path) for path, parts in listed)
    text = opened or next(filter(None, told), "")
    last = conversation.answers()
    if not text:
        _left_out(conversation, item)
    elif last is not None and not last.parts and not last.tool_calls:
        conversation.messages[-1] = replace(last, reasoning="\n".join(filter(None, (last.reasoning, text))))
    else:
        conversation.messages.append(Message(Role.ASSISTANT, reasoning=text))


def _as_reasoning(parts: Any, path: str) -> list[JSONObject]:
    """The same parts under a type that is read as reasoning, whatever they are called."""
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise wrong_type(path, "a list of reasoning parts", parts)
    return [part | {"type": "reasoning_text"} for part in parts]


# --- calls and results ---------------------------------------------------------------------------------------------


def _call(conversation: Conversation, call: ToolCall) -> None:
    """Add a call to the assistant's message, which it opens if there is none."""
    last = conversation.answers()
    if last is None:
        conversation.messages.append(Message(Role.ASSISTANT, tool_calls=(call,)))
    else:
        conversation.messages[-1] = replace(last, tool_calls=(*last.tool_calls, call))


def _result(conversation: Conversation, call_id: str, parts: tuple[Part, ...]) -> None:
    conversation.messages.append(Message(Role.TOOL, parts, tool_call_id=call_id))


def _function_call(conversation: Conversation, item: Item) -> None:
    _call(conversation, ToolCall(_call_id(item), _name(item), _arguments(item)))


def _arguments(item: Item) -> str:
    """The arguments as the model wrote them, even if they are not JSON: clients cannot fix history."""
    arguments = item.value.get("arguments")
    if not isinstance(arguments, (str, dict, type(None))):
        raise wrong_type(f"{item.path}.arguments", "the JSON text of an object", arguments)
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, dict) else arguments or "{}"


def _custom_call(conversation: Conversation, item: Item) -> None:
    text = string_at(f"{item.path}.input", item.value.get("input") or "")
    _call(conversation, ToolCall(_call_id(item), _name(item), custom_arguments(text)))


def _output(conversation: Conversation, item: Item) -> None:
    """What a call has given: a text, or a list of parts with images and files."""
    _result(conversation, _call_id(item), _output_parts(item.value.get("output"), f"{item.path}.output"))


def _output_parts(output: Any, path: str) -> tuple[Part, ...]:
    if isinstance(output, list) and output and all(isinstance(each, dict) and "stdout" in each for each in output):
        output = "\n".join(json.dumps(each, ensure_ascii=False) for each in output)  # of `shell_call_output`
    if isinstance(output, dict):
        if output.get("image_url"):  # the screenshot of a `computer_call_output`
            return decode_content([output | {"type": "input_image"}], path)
        output = json.dumps(output, ensure_ascii=False)
    return () if output is None else decode_content(output, path)


def _client_call(conversation: Conversation, item: Item) -> None:
    """A call of a tool that OpenAI defines and the client runs: a shell, a patch, a click."""
    what: Any = next((item.value[key] for key in _CALL_KEYS if key in item.value), {})
    name = str(item.value["type"]).removesuffix("_call")
    _call(conversation, ToolCall(_call_id(item), name, json.dumps(what, ensure_ascii=False)))


#: Where such calls say what is to be done.
_CALL_KEYS: Final = ("action", "actions", "operation", "arguments")


def _mcp_call(conversation: Conversation, item: Item) -> None:
    """A call of an MCP server's tool that was run, and what it gave."""
    approval_id = item.value.get("approval_request_id")
    conversation.approved = [each for each in conversation.approved if each.approved.approval_id != approval_id]
    _function_call(conversation, item)
    _result(conversation, _call_id(item), tuple(_as_data(_mcp_output(item))))


def _mcp_output(item: Item) -> tuple[Part, ...]:
    """The output of a call, with its pictures where this server has written the item."""
    notes = item.value.get("periscope")
    if isinstance(notes, dict) and isinstance(notes.get("output"), list):
        return decode_content(notes["output"], f"{item.path}.periscope.output")
    error = item.value.get("error")
    if isinstance(error, dict):
        error = error.get("message") or error.get("content")
    return _output_parts(item.value.get("output") or error or "", f"{item.path}.output")


def _as_data(parts: Iterable[Part]) -> Iterator[Part]:
    """A result whose texts are somebody else's words, fenced as they were when the model first read them."""
    return (replace(part, is_data=True) if isinstance(part, TextPart) else part for part in parts)


def _mcp_list(conversation: Conversation, item: Item) -> None:
    """The tools of an MCP server, which are not asked for again."""
    label, listed = item.value.get("server_label"), listed_of(item.value)
    if isinstance(label, str) and listed is not None:
        conversation.lists[label] = listed


def _approval_request(conversation: Conversation, item: Item) -> None:
    """A call that waits for the client. If the client has not answered, the model is told that."""
    label, request_id = item.value.get("server_label"), str(item.value["id"])
    if not isinstance(label, str):
        raise wrong_type(f"{item.path}.server_label", "the name of an MCP server", label)
    call = ToolCall(request_id, _name(item), _arguments(item))
    if request_id in conversation.answered:
        tool = ServersTool(label, string_at(f"{item.path}.name", item.value.get("name")))
        conversation.waiting[request_id] = ApprovedTool(ApprovedCall(call, request_id), tool)
    else:
        _call(conversation, call)
        _result(conversation, call.id, (TextPart("Nobody has said whether this may be done: it was not done."),))


def _approval_response(conversation: Conversation, item: Item) -> None:
    """The client agrees, and the call is run now; or not, and the model is told that."""
    request_id, is_agreed = item.value.get("approval_request_id"), item.value.get("approve")
    waiting = conversation.waiting.pop(request_id, None) if isinstance(request_id, str) else None
    if waiting is None:
        param = f"{item.path}.approval_request_id"
        raise InvalidRequest(
            f"`{param}` is {kind_of(request_id)}, and no mcp_approval_request of this id stands before it without an "
            "answer. Send that item, too, or go on with `previous_response_id`.",
            param=param,
        )
    if not isinstance(is_agreed, bool):
        raise wrong_type(f"{item.path}.approve", "true or false", is_agreed)
    if is_agreed:
        conversation.approved.append(waiting)
        return
    reason = item.value.get("reason")
    call = waiting.approved.call
    _call(conversation, call)
    told = f"The user has refused this call, and it was not run{f': {reason}' if isinstance(reason, str) else '.'}"
    _result(conversation, call.id, (TextPart(told, is_data=True),))


def _hosted_call(conversation: Conversation, item: Item) -> None:
    """What a tool of OpenAI's was asked and answered, as text."""
    told = {key: value for key, value in item.value.items() if key not in _NO_WORDS and value is not None}
    name = str(item.value["type"]).removesuffix("_call")
    _say_more(conversation, (TextPart(f"[{name} was called: {json.dumps(told, ensure_ascii=False)}]"),))


_NO_WORDS: Final = ("type", "id", "status", "container_id", "result")


def _generated_image(conversation: Conversation, item: Item) -> None:
    """An image that a tool of OpenAI's has made, which the model sees like any other."""
    data = item.value.get("result")
    if not isinstance(data, str) or not data:
        _left_out(conversation, item)
        return
    kind = item.value.get("output_format") or "png"
    image = {"type": "input_image", "image_url": f"data:image/{kind};base64,{data}"}
    _say_more(conversation, (image_url_part(image, item.path),))


def _say_more(conversation: Conversation, parts: tuple[Part, ...]) -> None:
    """Add to what the assistant says, in the same message where it has not called a tool since."""
    last = conversation.answers()
    if last is not None and not last.tool_calls:
        conversation.messages[-1] = replace(last, parts=(*last.parts, *parts))
    else:
        _say(conversation, parts)


def _call_id(item: Item) -> str:
    """The id of the call; "" if the client left it out. An item's own id is another, and may have been given here."""
    key = "id" if item.value["type"] in _CALLED_BY_ID and not item.value.get("call_id") else "call_id"
    call_id = item.value.get(key)
    return call_id if isinstance(call_id, str) else ""


#: They have the id of the call as their own, and may have no other.
_CALLED_BY_ID: Final = ("local_shell_call", "local_shell_call_output", "mcp_call")


def _name(item: Item) -> str:
    name, namespace = item.value.get("name"), item.value.get("namespace")
    if name is None:
        return ""
    if isinstance(server := item.value.get("server_label"), str):
        return server_tool_name(server, string_at(f"{item.path}.name", name))
    return name_for_model(
        string_at(f"{item.path}.name", name), string_at(f"{item.path}.namespace", namespace) if namespace else None
    )


# --- tools ---------------------------------------------------------------------------------------------------------


def _added_tools(conversation: Conversation, item: Item) -> None:
    """Tools that the client has found or added in the course of the conversation."""
    wire = validate(_ToolsWire, item.value, item.path)
    conversation.tools = joined(conversation.tools, decode_tools(wire.tools or (), f"{item.path}.tools"))
    if item.value["type"] == "tool_search_output":
        names = ", ".join(tool.name for tool in decode_tools(wire.tools or ()).offered)
        _result(conversation, _call_id(item), (TextPart(f"These tools can be called: {names or 'none'}."),))


_Decode: TypeAlias = Callable[[Conversation, Item], None]
_KINDS: Mapping[str, _Decode] = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _function_call,
    "function_call_output": _output,
    "custom_tool_call": _custom_call,
    "custom_tool_call_output": _output,
    **dict.fromkeys(("local_shell_call", "shell_call", "apply_patch_call", "computer_call"), _client_call),
    **dict.fromkeys(("local_shell_call_output", "shell_call_output"), _output),
    **dict.fromkeys(("apply_patch_call_output", "computer_call_output"), _output),
    **dict.fromkeys(("web_search_call", "file_search_call", "code_interpreter_call"), _hosted_call),
    "image_generation_call": _generated_image,
    "mcp_call": _mcp_call,
    "mcp_list_tools": _mcp_list,
    "mcp_approval_request": _approval_request,
    _APPROVAL: _approval_response,
    "tool_search_call": _client_call,
    **dict.fromkeys(("tool_search_output", "additional_tools"), _added_tools),
    **dict.fromkeys(("compaction", "compaction_summary"), _left_out),
}
