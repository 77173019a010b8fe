"""The kinds of output items that a model writes, as they grow. Pure but for the ids drawn.

A further kind of item is one more class like these here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from periscope.api.custom_tools import CustomInput
from periscope.api.replies import json_logprob
from periscope.api.responses.mcp_tools import ServersTool
from periscope.api.responses.tools import ClientTool, NamedTools
from periscope.core import (
    ReasoningDelta,
    ServerCallDelta,
    ServerCallStart,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    new_id,
)

if TYPE_CHECKING:
    from periscope.api.responses.sealed import ReasoningSeal
    from periscope.core import JSONObject, TokenLogprob, TokenText

#: What the model writes.
Delta: TypeAlias = TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | ServerCallStart | ServerCallDelta

COMPLETED: Final = "completed"
INCOMPLETE: Final = "incomplete"
IN_PROGRESS: Final = "in_progress"


@dataclass(frozen=True, slots=True)
class OutputForm:
    """What the client asked of the items.

    Attributes:
        tools: by which the client knows the tools that the model calls.
        server_tools: the same of tools on MCP servers, filled before the first of them is called.
        has_summary: reasoning is told as a summary. It is the whole reasoning: nothing makes a shorter one.
        seal: seals reasoning for `encrypted_content`; None = the client did not ask for it.
        has_logprobs: each token of a text is told with its log-probability.
        is_single_tool_call: of several calls only the first is told.
    """

    tools: NamedTools = NamedTools()
    server_tools: Mapping[str, ServersTool] = field(default_factory=dict)
    has_summary: bool = False
    seal: ReasoningSeal | None = None
    has_logprobs: bool = False
    is_single_tool_call: bool = False

    def on_server(self, name: str) -> ServersTool:
        """The tool on an MCP server that the model has called by this name."""
        return self.server_tools.get(name) or ServersTool("", name)


class OutputItem(ABC):
    """Owns one item that grows. Events are without the fields that all have, which `Output` adds."""

    def __init__(self, item_id: str) -> None:
        self.id = item_id

    @abstractmethod
    def takes(self, delta: Delta) -> bool:
        """Whether the delta belongs to this item. Else it ends here."""

    @abstractmethod
    def value(self, status: str) -> JSONObject:
        """The item as far as it has grown."""

    @abstractmethod
    def begun(self) -> Iterator[JSONObject]:
        """The events between `response.output_item.added` and the item's first delta."""

    @abstractmethod
    def grown(self, delta: Delta) -> Iterator[JSONObject]:
        """Takes a delta that belongs to it."""

    @abstractmethod
    def ended(self) -> Iterator[JSONObject]:
        """What comes before `response.output_item.done`."""


class MessageItem(OutputItem):
    """Text of the answer, in one part."""

    def __init__(self, form: OutputForm) -> None:
        super().__init__(new_id("msg_"))
        self._has_logprobs = form.has_logprobs
        self._texts: list[str] = []
        self._logprobs: list[JSONObject] = []

    def takes(self, delta: Delta) -> bool:
        return isinstance(delta, TextDelta)

    def value(self, status: str) -> JSONObject:
        content = [] if status == IN_PROGRESS else [self._part()]
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": content}

    def begun(self) -> Iterator[JSONObject]:
        yield {"type": "response.content_part.added", "content_index": 0, "part": self._part()}

    def grown(self, delta: Delta) -> Iterator[JSONObject]:
        assert isinstance(delta, TextDelta)  # noqa: S101  # as `takes` says
        logprobs = [_logprob(entry) for entry in delta.logprobs]
        self._texts.append(delta.text)
        self._logprobs += logprobs
        yield {"type": "response.output_text.delta", "content_index": 0, "delta": delta.text, "logprobs": logprobs}

    def ended(self) -> Iterator[JSONObject]:
        part = self._part()
        yield {
            "type": "response.output_text.done",
            "content_index": 0,
            "text": part["text"],
            "logprobs": self._logprobs,
        }
        yield {"type": "response.content_part.done", "content_index": 0, "part": part}

    def _part(self) -> JSONObject:
        part = {"type": "output_text", "text": "".join(self._texts), "annotations": []}
        return part | ({"logprobs": list(self._logprobs)} if self._has_logprobs else {})


class ReasoningItem(OutputItem):
    """The model's reasoning, as `content`, or as `summary` where the client asked for one."""

    def __init__(self, form: OutputForm) -> None:
        super().__init__(new_id("rs_"))
        self._has_summary = form.has_summary
        self._seal = form.seal
        self._texts: list[str] = []
        kind, place = ("reasoning_summary_text", "summary") if self._has_summary else ("reasoning_text", "content")
        self._text_event = f"response.{kind}"
        self._part_event = f"response.{'reasoning_summary_part' if self._has_summary else 'content_part'}"
        self._at = {f"{place}_index": 0}

    def takes(self, delta: Delta) -> bool:
        return isinstance(delta, ReasoningDelta)

    def value(self, status: str) -> JSONObject:
        parts = [] if status == IN_PROGRESS else [self._part()]
        summary, content = (parts, []) if self._has_summary else ([], parts)
        item: JSONObject = {"id": self.id, "type": "reasoning", "summary": summary, "status": status}
        if content:
            item["content"] = content
        if self._seal is not None:
            item["encrypted_content"] = self._seal.sealed("".join(self._texts)) if self._texts else None
        return item

    def begun(self) -> Iterator[JSONObject]:
        yield {"type": f"{self._part_event}.added", **self._at, "part": self._part()}

    def grown(self, delta: Delta) -> Iterator[JSONObject]:
        assert isinstance(delta, ReasoningDelta)  # noqa: S101  # as `takes` says
        self._texts.append(delta.text)
        yield {"type": f"{self._text_event}.delta", **self._at, "delta": delta.text}

    def ended(self) -> Iterator[JSONObject]:
        yield {"type": f"{self._text_event}.done", **self._at, "text": "".join(self._texts)}
        yield {"type": f"{self._part_event}.done", **self._at, "part": self._part()}

    def _part(self) -> JSONObject:
        kind = "summary_text" if self._has_summary else "reasoning_text"
        return {"type": kind, "text": "".join(self._texts)}


class CallItem(OutputItem):
    """A call of a function."""

    def __init__(self, start: ToolCallStart, tool: ClientTool) -> None:
        super().__init__(new_id("ctc_" if tool.is_custom else "fc_"))
        self._index = start.index
        self._call_id = start.id
        self._tool = tool
        self._arguments: list[str] = []

    def takes(self, delta: Delta) -> bool:
        return isinstance(delta, ToolCallDelta) and delta.index == self._index

    def value(self, status: str) -> JSONObject:
        item: JSONObject = {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._tool.name,
            "arguments": "".join(self._arguments),
        }
        return item | ({"namespace": self._tool.namespace} if self._tool.namespace else {})

    def begun(self) -> Iterator[JSONObject]:
        yield from ()

    def grown(self, delta: Delta) -> Iterator[JSONObject]:
        yield {"type": "response.function_call_arguments.delta", "delta": self._added(delta)}

    def ended(self) -> Iterator[JSONObject]:
        yield {"type": "response.function_call_arguments.done", "arguments": "".join(self._arguments)}

    def _added(self, delta: Delta) -> str:
        assert isinstance(delta, ToolCallDelta)  # noqa: S101  # as `takes` says
        self._arguments.append(delta.arguments)
        return delta.arguments


class CustomCallItem(CallItem):
    """A call of a custom tool, which is called with a text."""

    def __init__(self, start: ToolCallStart, tool: ClientTool) -> None:
        super().__init__(start, tool)
        self._input = CustomInput()
        self._texts: list[str] = []

    def value(self, status: str) -> JSONObject:
        item = super().value(status) | {"type": "custom_tool_call", "input": "".join(self._texts)}
        del item["arguments"]
        return item

    def grown(self, delta: Delta) -> Iterator[JSONObject]:
        if text := self._input.feed(self._added(delta)):
            self._texts.append(text)
            yield {"type": "response.custom_tool_call_input.delta", "delta": text}

    def ended(self) -> Iterator[JSONObject]:
        yield {"type": "response.custom_tool_call_input.done", "input": "".join(self._texts)}


def _logprob(entry: TokenLogprob) -> JSONObject:
    return _token(entry.token, entry.logprob) | {"top_logprobs": [_token(*top) for top in entry.top]}


def _token(token: TokenText, logprob: float | None) -> JSONObject:
    return {"token": token.text, "logprob": json_logprob(logprob), "bytes": list(token.utf8)}
