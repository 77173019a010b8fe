"""Requests to `/v1/responses`, wire to core. Pure.

It takes two steps, because a request may go on from an earlier one, whose items are read from the store between them:
`decode` checks the body, `Asked.request` makes the request of its items and the earlier ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar

from periscope.api.bounds import refuse_too_many, refuse_too_many_items
from periscope.api.call_ids import pair_calls
from periscope.api.fields import refuse_fields
from periscope.api.responses.fields import RESPONSES_FIELDS
from periscope.api.responses.items import Item, decode_items
from periscope.api.responses.mcp_tools import ServersAsked, decode_servers, unused_of_servers
from periscope.api.responses.schema import PromptWire, ResponsesWire
from periscope.api.responses.tools import NamedTools, decode_tool_choice, decode_tools, joined
from periscope.api.responses.unused import unused_fields
from periscope.api.schema_nulls import without_nulls
from periscope.api.thinking import thinking_budget, thinking_variables
from periscope.api.toolset import refuse_hosted_alone
from periscope.api.validation import validate
from periscope.api.wording import clip, kind_of
from periscope.core import (
    GenerationParams,
    GenerationRequest,
    JSONObject,
    Message,
    ResponseFormat,
    Role,
    TextPart,
    new_id,
)
from periscope.errors import InvalidRequest
from periscope.serving.server_tools import MAX_CALLS

if TYPE_CHECKING:
    from periscope.api.custom_tools import CustomTool
    from periscope.api.responses.mcp_tools import ApprovedTool, AskedServer
    from periscope.api.responses.sealed import ReasoningSeal

LOGPROBS: Final = "message.output_text.logprobs"
#: Which items a request may name instead of sending them.
_REFERENCE: Final = "item_reference"
#: The names of the fields of `GenerationParams` that are called otherwise here.
_PARAM_NAMES: Final = {"max_tokens": "max_output_tokens"}


@dataclass(frozen=True, slots=True)
class Decoded:
    """A request with all of its items.

    Attributes:
        tools: under the names by which the model knows them.
        unused: places of what was accepted and is not used.
        answers_as: the custom tool of which the whole answer is a call.
        servers: what it asks of MCP servers, whose tools are not in `request` yet.
    """

    request: GenerationRequest
    tools: NamedTools
    unused: tuple[str, ...]
    answers_as: str | None = None
    servers: ServersAsked = ServersAsked()


WireT = TypeVar("WireT", bound=PromptWire)


@dataclass(frozen=True, slots=True)
class Asked(Generic[WireT]):
    """A request whose body has been checked. Its items may name others, which are in the store.

    Attributes:
        items: those of `input`, each with an id.
    """

    id: str
    wire: WireT
    items: tuple[JSONObject, ...]

    @property
    def references(self) -> list[str]:
        """The ids of the items that the request names."""
        return [str(item["id"]) for item in self.items if _is_reference(item)]

    def with_items(self, named: Mapping[str, JSONObject]) -> Self:
        """The same with the items that it names.

        Raises:
            InvalidRequest: one of them is not there.
        """
        return replace(self, items=tuple(_resolved(item, i, named) for i, item in enumerate(self.items)))

    def request(
        self, seal: ReasoningSeal, earlier: Sequence[JSONObject] = (), known_servers: Sequence[str] = ()
    ) -> Decoded:
        """The request for the model, with the items of earlier turns before its own.

        Args:
            earlier: the items of the turns that it goes on from.
            known_servers: names of the MCP servers of models.yaml.

        Raises:
            InvalidRequest: names the field, what was expected and what came.
        """
        refuse_too_many_items([*earlier, *self.items])
        wire = self.wire
        before = (Item(f"previous_response_id.items[{i}]", item) for i, item in enumerate(earlier))
        mine = (Item(f"input[{i}]", item) for i, item in enumerate(self.items))
        told = decode_items((*before, *mine), seal)
        asked_tools = decode_tools(wire.tools or ())
        tools = joined(asked_tools, told.tools)
        refuse_hosted_alone([tool.type for tool in wire.tools or ()], tools)
        entries = decode_servers(wire.tools or (), known_servers)
        is_parallel = wire.parallel_tool_calls is not False
        choice, chosen = decode_tool_choice(wire.tool_choice, tools, entries, is_parallel=is_parallel)
        servers = ServersAsked(entries, told.lists, _approved(told.approved, entries), chosen, _max_calls(wire))
        forced = tools.forced_custom(choice)
        system = [Message(Role.SYSTEM, (TextPart(wire.instructions),))] if wire.instructions else []
        request = GenerationRequest(
            id=self.id,
            model=wire.model or "",
            messages=_paired([*system, *told.messages]),
            params=_params(wire, forced) if isinstance(wire, ResponsesWire) else GenerationParams(),
            output=tools.output(choice, _response_format(wire)),
            counts_only=not isinstance(wire, ResponsesWire),
            template_kwargs=thinking_variables(wire, {}),
        )
        unused = (
            *unused_fields(wire),
            *unused_of_servers(wire.tools or ()),
            *tools.left_out,
            *told.left_out,
            *tools.unenforced_formats(choice),
        )
        return Decoded(request, tools, unused, None if forced is None else forced.tool.name, servers)


def decode(body: Any, request_id: str) -> Asked[ResponsesWire]:
    """A parsed body of POST /v1/responses.

    Raises:
        InvalidRequest: names the field, what was expected and what came.
    """
    return _asked(ResponsesWire, body, request_id)


def decode_prompt(body: Any, request_id: str) -> Asked[PromptWire]:
    """A parsed body of POST /v1/responses/input_tokens.

    Raises:
        InvalidRequest: as `decode`.
    """
    return _asked(PromptWire, body, request_id)


def _asked(shape: type[WireT], body: Any, request_id: str) -> Asked[WireT]:
    refuse_too_many(body)
    wire = validate(shape, body)
    refuse_fields(wire.model_extra, RESPONSES_FIELDS)
    if not wire.input and not (wire.input is None and (wire.previous_response_id or wire.instructions)):
        raise InvalidRequest(
            "`input` is missing or empty: send a text, or a list of items such as "
            '{"role": "user", "content": "Hello"}.',
            param="input",
        )
    return Asked(request_id, wire, tuple(_with_id(item, i) for i, item in enumerate(wire.input or ())))


def _with_id(item: JSONObject, index: int) -> JSONObject:
    if isinstance(item.get("id"), str) and item["id"]:
        return item
    if _is_reference(item):
        raise InvalidRequest(
            f"`input[{index}].id` must be the id of a stored item, got {kind_of(item.get('id'))}.",
            param=f"input[{index}].id",
        )
    return item | {"id": new_id(_prefix(item))}


_PREFIXES: Final = {
    "function_call": "fc_",
    "function_call_output": "fco_",
    "reasoning": "rs_",
    "mcp_call": "mcp_",
    "mcp_list_tools": "mcpl_",
    "mcp_approval_request": "mcpr_",
    "mcp_approval_response": "mcpa_",
}


def _prefix(item: JSONObject) -> str:
    return _PREFIXES.get(str(item.get("type")), "msg_")


def _is_reference(item: JSONObject) -> bool:
    """`type` is optional in references."""
    return item.get("type") == _REFERENCE or set(item) == {"id"}


def _resolved(item: JSONObject, index: int, named: Mapping[str, JSONObject]) -> JSONObject:
    if not _is_reference(item):
        return item
    if item["id"] not in named:
        raise InvalidRequest(
            f"`input[{index}].id` names an item that is not stored here: {kind_of(item['id'])}. Send the item itself. "
            "Items are stored with responses for which `store` is not false.",
            param=f"input[{index}].id",
        )
    return named[item["id"]]


def _approved(approved: Sequence[ApprovedTool], entries: Sequence[AskedServer]) -> tuple[ApprovedTool, ...]:
    """The calls that are run now.

    Raises:
        InvalidRequest: one is of a server that this request does not name.
    """
    labels = [entry.label for entry in entries]
    for each in approved:
        if each.tool.server not in labels:
            raise InvalidRequest(
                f"The input approves a call of the MCP server {clip(each.tool.server)}, which is not in `tools`. Send "
                "its entry of type mcp again, as in the request before.",
                param="tools",
            )
    return tuple(approved)


def _max_calls(wire: PromptWire) -> int:
    asked = wire.max_tool_calls if isinstance(wire, ResponsesWire) else None
    if asked is not None and asked < 0:
        raise InvalidRequest(f"`max_tool_calls` must be 0 or more, got {asked}.", param="max_tool_calls")
    return MAX_CALLS if asked is None else min(asked, MAX_CALLS)


def _paired(messages: list[Message]) -> tuple[Message, ...]:
    try:
        return pair_calls(messages)
    except InvalidRequest:
        raise InvalidRequest(
            "A result of a call in `input` has no `call_id`, and no call stands before it that it could answer. Send "
            "the `call_id` of the call.",
            param="input",
        ) from None


def _params(wire: ResponsesWire, forced: CustomTool | None) -> GenerationParams:
    """The sampling parameters. Stop strings act on no call, so that there are none where the answer is one."""
    has_logprobs = LOGPROBS in (wire.include or ()) or bool(wire.top_logprobs)
    try:
        return GenerationParams(
            max_tokens=wire.max_output_tokens,
            temperature=wire.temperature,
            top_p=wire.top_p,
            top_k=wire.top_k,
            min_p=wire.min_p,
            repetition_penalty=wire.repetition_penalty,
            frequency_penalty=wire.frequency_penalty,
            presence_penalty=wire.presence_penalty,
            seed=wire.seed,
            stop=tuple(wire.stop or ()) if forced is None else (),
            logprobs=has_logprobs,
            top_logprobs=wire.top_logprobs or 0,
            thinking_budget=thinking_budget(wire, {}),
        )
    except InvalidRequest as error:
        name = _PARAM_NAMES.get(error.param or "")
        if name is None:
            raise
        raise InvalidRequest(error.message.replace(f"`{error.param}`", f"`{name}`"), param=name) from None


def _response_format(wire: PromptWire) -> ResponseFormat | None:
    form = None if wire.text is None else wire.text.format
    if form is None or form.type == "text":
        return None
    if form.type == "json_object":
        return ResponseFormat({"type": "object"}, "text.format")
    if form.type != "json_schema":
        raise InvalidRequest(
            f"`text.format.type` must be text, json_object or json_schema, got {kind_of(form.type)}.",
            param="text.format.type",
        )
    if form.schema_ is None:
        raise InvalidRequest("`text.format.schema` is missing.", param="text.format.schema")
    return ResponseFormat(without_nulls(form.schema_), "text.format.schema")
