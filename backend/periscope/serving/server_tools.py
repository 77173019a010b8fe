"""ServerTool: a tool that the server offers the text model and runs inside the request. Protocols and plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from periscope.core import Tell, Tool, ToolCall, ToolResult

#: Calls of tools on MCP servers in one answer, where the client sets no lower bound: a model that goes in circles ends.
MAX_CALLS: Final = 128


class ServerTool(Protocol):
    """One tool, for one request. Event loop only."""

    @property
    def tool(self) -> Tool:
        """The tool as the model is offered it. Its name is none of the client's tools."""
        ...

    @property
    def max_calls(self) -> int:
        """Calls that are run for the request; further ones are answered with a refusal that the model reads."""
        ...

    @property
    def is_shown(self) -> bool:
        """The client hears of its calls and their results, which are run side by side. Others run one by one."""
        ...

    @property
    def needs_approval(self) -> bool:
        """The answer ends with the call, which is only run when the client agrees. Only of tools that are shown."""
        ...

    async def call(self, arguments: str, tell: Tell) -> ToolResult:
        """The result that the model reads, which also says what is wrong with the call, or that it failed.

        Cancellable at any await.

        Args:
            arguments: as the model wrote them, so perhaps no JSON.
            tell: called with what the call waits for.

        Raises:
            PeriscopeError: the whole request ends with it.
        """
        ...


@dataclass(frozen=True, slots=True)
class ApprovedCall:
    """A call that an earlier answer ended with, and the client has agreed to.

    Attributes:
        approval_id: of the `ApprovalWanted`.
    """

    call: ToolCall
    approval_id: str


@dataclass(frozen=True, slots=True)
class ServerTools:
    """The tools on MCP servers that one request may have called.

    Attributes:
        approved: calls that are run before the model is asked.
        max_calls: all calls of the request together, those that are approved included.
    """

    tools: tuple[ServerTool, ...] = ()
    approved: tuple[ApprovedCall, ...] = ()
    max_calls: int = MAX_CALLS
