"""Calls of tools, core to wire, in the shapes of chat completions: functions and custom tools. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, TypeAlias

from periscope.api.custom_tools import CustomInput
from periscope.core import ToolCallDelta, ToolCallStart

if TYPE_CHECKING:
    from periscope.core import JSONObject

CallDelta: TypeAlias = ToolCallStart | ToolCallDelta


class CallEncoder:
    """Owns the state of the calls of one choice between chunks.

    Args:
        custom_tools: names of the tools whose calls hold a text.
    """

    def __init__(self, custom_tools: Collection[str]) -> None:
        self._custom_tools = custom_tools
        self._inputs: dict[int, CustomInput] = {}

    def delta(self, event: CallDelta) -> JSONObject | None:
        """A piece of a call as OpenAI streams it: the first names it, the others hold pieces of what it is called with.

        Returns:
            None if the piece says nothing.
        """
        if isinstance(event, ToolCallStart):
            is_custom = event.name in self._custom_tools
            if is_custom:
                self._inputs[event.index] = CustomInput()
            called = {"name": event.name, "input" if is_custom else "arguments": ""}
            kind = "custom" if is_custom else "function"
            return {"index": event.index, "id": event.id, "type": kind, kind: called}
        if event.index not in self._inputs:
            return {"index": event.index, "function": {"arguments": event.arguments}}
        text = self._inputs[event.index].feed(event.arguments)
        return {"index": event.index, "custom": {"input": text}} if text else None


def encode_calls(deltas: Iterable[CallDelta], custom_tools: Collection[str]) -> list[JSONObject]:
    """The whole calls of one choice: the same as its pieces, joined."""
    encoder = CallEncoder(custom_tools)
    calls: dict[int, JSONObject] = {}
    pieces: dict[int, list[str]] = {}
    for event in deltas:
        told = encoder.delta(event)
        if told is None:
            continue
        index = told.pop("index")
        if isinstance(event, ToolCallStart):
            calls[index], pieces[index] = told, []
        else:
            pieces[index] += [text for called in told.values() for text in called.values()]
    for index, call in calls.items():
        name, key = ("custom", "input") if call["type"] == "custom" else ("function", "arguments")
        call[name][key] = "".join(pieces[index])
    return list(calls.values())
