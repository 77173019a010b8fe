"""The output items of a response as they grow, and the events that tell of it. Pure but for the ids drawn.

A response that is not streamed is made in the same way without its events, so that both have the same items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from periscope.api.responses.mcp_items import FAILED, McpCallItem, approval_item, list_item
from periscope.api.responses.output_items import (
    COMPLETED,
    IN_PROGRESS,
    INCOMPLETE,
    CallItem,
    CustomCallItem,
    Delta,
    MessageItem,
    OutputForm,
    OutputItem,
    ReasoningItem,
)
from periscope.core import (
    ApprovalWanted,
    ReasoningDelta,
    ServerCallDelta,
    ServerCallResult,
    ServerCallRun,
    ServerCallStart,
    ServerToolEvent,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    ToolsListed,
    ToolsListing,
    new_id,
)

if TYPE_CHECKING:
    from periscope.core import JSONObject, TokenLogprob

__all__ = ["COMPLETED", "FAILED", "INCOMPLETE", "Output", "OutputForm", "whole"]

#: All that becomes items.
Told: TypeAlias = Delta | ServerToolEvent


class Output:
    """Owns the items of one response: those that have ended, the one that is written, and those that wait for results.

    A call of a tool on an MCP server waits for its result once it is written, and others may begin meanwhile.

    Log-probabilities belong to the text of a message. Those that come without text while no message is written wait for
    one: they may be of a part of its first character. When anything else follows, they are of that, and are not told.
    """

    def __init__(self, form: OutputForm) -> None:
        self._form = form
        self._ended: dict[int, JSONObject] = {}
        self._num_begun = 0
        self._growing: tuple[int, OutputItem] | None = None
        self._running: dict[str, tuple[int, McpCallItem]] = {}
        self._listing: dict[str, tuple[int, str]] = {}
        self._ahead_of_text: tuple[TokenLogprob, ...] = ()

    @property
    def items(self) -> list[JSONObject]:
        """The items that have ended, in the order in which they began."""
        return [self._ended[index] for index in sorted(self._ended)]

    def take(self, told: Told) -> Iterator[JSONObject]:
        """The events of an event of the answer."""
        if self._ahead_of_text:
            if isinstance(told, TextDelta):
                told = replace(told, logprobs=self._ahead_of_text + told.logprobs)
            self._ahead_of_text = ()
        match told:
            case TextDelta("", logprobs) if not self._is_in_message:
                self._ahead_of_text = logprobs
            case ToolsListing(server):
                yield from self._list(server)
            case ToolsListed():
                yield from self._listed(told)
            case ServerCallRun():
                yield from self.end(COMPLETED)
            case ServerCallResult():
                yield from self._gave(told)
            case ApprovalWanted(call):
                yield from self.end(COMPLETED)
                yield from self._whole(approval_item(call, self._form.on_server(call.name)))
            case _:
                yield from self._grow(told)

    def end(self, status: str) -> Iterator[JSONObject]:
        """The events of the end of the item that is written, if one is."""
        if self._growing is None:
            return
        (index, item), self._growing = self._growing, None
        yield from _events(index, item, item.ended())
        if isinstance(item, McpCallItem):
            self._running[item.call_id] = (index, item)
        else:
            yield self._done(index, item.value(status))

    def end_all(self, status: str) -> Iterator[JSONObject]:
        """End the open item, and the calls whose results will not come."""
        yield from self.end(status)
        for index, item in self._running.values():
            yield self._done(index, item.value(INCOMPLETE))
        self._running = {}

    def fill(self) -> Iterator[JSONObject]:
        """The events of an empty message, if nothing was said or called: clients read an answer in any case."""
        if all(item["type"] in ("reasoning", "mcp_list_tools") for item in self.items):
            yield from self._begin(MessageItem(self._form))
            yield from self.end(COMPLETED)

    @property
    def _is_in_message(self) -> bool:
        return self._growing is not None and isinstance(self._growing[1], MessageItem)

    def _grow(self, delta: Delta) -> Iterator[JSONObject]:
        if not self._is_wanted(delta):
            return
        if self._growing is None or not self._growing[1].takes(delta):
            yield from self.end(COMPLETED)
            yield from self._begin(self._item(delta))
        assert self._growing is not None  # noqa: S101  # it has begun
        if not isinstance(delta, (ToolCallStart, ServerCallStart)):
            index, item = self._growing
            yield from _events(index, item, item.grown(delta))

    def _begin(self, item: OutputItem) -> Iterator[JSONObject]:
        index = self._next_index()
        self._growing = (index, item)
        yield {"type": "response.output_item.added", "output_index": index, "item": item.value(IN_PROGRESS)}
        yield from _events(index, item, item.begun())

    def _done(self, index: int, item: JSONObject) -> JSONObject:
        self._ended[index] = item
        return {"type": "response.output_item.done", "output_index": index, "item": item}

    def _next_index(self) -> int:
        self._num_begun += 1
        return self._num_begun - 1

    def _whole(self, item: JSONObject) -> Iterator[JSONObject]:
        """The events of an item that does not grow."""
        index = self._next_index()
        yield {"type": "response.output_item.added", "output_index": index, "item": item}
        yield self._done(index, item)

    def _gave(self, told: ServerCallResult) -> Iterator[JSONObject]:
        index, item = self._running.pop(told.id)
        status = item.gave(told.result)
        yield {"type": f"response.mcp_call.{status}", "item_id": item.id, "output_index": index}
        yield self._done(index, item.value(status))

    def _list(self, server: str) -> Iterator[JSONObject]:
        index, item_id = self._listing[server] = (self._next_index(), new_id("mcpl_"))
        item = list_item(item_id, ToolsListed(server))
        yield {"type": "response.output_item.added", "output_index": index, "item": item}
        yield {"type": "response.mcp_list_tools.in_progress", "item_id": item_id, "output_index": index}

    def _listed(self, told: ToolsListed) -> Iterator[JSONObject]:
        index, item_id = self._listing.pop(told.server)
        how = COMPLETED if told.error is None else FAILED
        yield {"type": f"response.mcp_list_tools.{how}", "item_id": item_id, "output_index": index}
        yield self._done(index, list_item(item_id, told))

    def _is_wanted(self, delta: Delta) -> bool:
        match delta:
            case TextDelta(text, logprobs):
                return bool(text or logprobs)
            case ReasoningDelta(text):
                return bool(text)
            case ToolCallStart() | ToolCallDelta():
                return delta.index == 0 or not self._form.is_single_tool_call
        return True

    def _item(self, delta: Delta) -> OutputItem:
        match delta:
            case TextDelta():
                return MessageItem(self._form)
            case ReasoningDelta():
                return ReasoningItem(self._form)
            case ToolCallStart():
                tool = self._form.tools.known(delta.name)
                return (CustomCallItem if tool.is_custom else CallItem)(delta, tool)
            case ServerCallStart():
                return McpCallItem(delta, self._form.on_server(delta.name))
            case ToolCallDelta() | ServerCallDelta():
                raise AssertionError("a call's arguments follow its start")


def _events(index: int, item: OutputItem, events: Iterator[JSONObject]) -> Iterator[JSONObject]:
    for event in events:
        yield event | {"item_id": item.id, "output_index": index}


def whole(told: Sequence[Told], form: OutputForm) -> Output:
    """All events of a response that is not streamed."""
    output = Output(form)
    for each in told:
        for _ in output.take(each):
            pass
    return output
