"""The MCP servers of one request: their tools are listed, then the model may call them. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from periscope.api.responses.mcp_tools import ServersTool, chosen_on_servers, server_tool_name
from periscope.core import (
    CallOutcome,
    ListedTool,
    ToolChoiceMode,
    ToolResult,
    ToolsListed,
    ToolsListing,
    arguments_object,
)
from periscope.errors import ToolServerUnreachable
from periscope.serving.server_tools import MAX_CALLS, ServerTools

if TYPE_CHECKING:
    from periscope.api.backend import ToolServer, ToolServers
    from periscope.api.responses.mcp_tools import AskedServer, ServersAsked
    from periscope.core import GenerationRequest, Tell, Tool


@dataclass(frozen=True, slots=True)
class McpTool:
    """A `ServerTool` on an MCP server."""

    tool: Tool
    server: ToolServer
    own_name: str
    needs_approval: bool

    @property
    def is_shown(self) -> bool:
        return True

    @property
    def max_calls(self) -> int:
        return MAX_CALLS

    async def call(self, arguments: str, tell: Tell) -> ToolResult:  # noqa: ARG002 - nothing is waited for but the tool
        read = arguments_object(arguments)
        if read is None:
            told = "The arguments are not a JSON object: nothing was run. Call the tool again with one."
            return ToolResult.told(told, CallOutcome.BAD_ARGUMENTS)
        return await self.server.call(self.own_name, read)


class RequestServers:
    """Owns what is known of the tools that one request may have called on MCP servers.

    Attributes:
        names: the tools as the client knows them, by the names by which the model does; filled by `listing`.
    """

    def __init__(self, asked: ServersAsked, servers: ToolServers | None) -> None:
        self.names = {each.approved.call.name: each.tool for each in asked.approved}
        self._asked = asked
        self._servers = servers
        self._lists: dict[str, tuple[ListedTool, ...]] = {}
        self._failures: dict[str, str] = {}

    async def listing(self) -> AsyncGenerator[ToolsListing | ToolsListed, None]:
        """Have the tools of all servers: from the conversation if they have been listed in it, else from the servers.

        What fails is told, and the request goes on without the tools of that server.
        """
        unlisted = []
        for entry in self._asked.entries:
            known = self._asked.lists.get(entry.label)
            if known is None or not (entry.allowed.names or frozenset()) <= {each.tool.name for each in known}:
                unlisted.append(entry)
            else:
                self._lists[entry.label] = known
        for entry in unlisted:
            yield ToolsListing(entry.label)
        tasks = {asyncio.create_task(self._listed(entry), name=f"list {entry.label}") for entry in unlisted}
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listed(self, entry: AskedServer) -> ToolsListed:
        server, problem = self._server(entry.label), f"The MCP server {entry.label} is not in models.yaml any more."
        if server is not None:
            try:
                tools = tuple(each for each in await server.listed() if entry.allowed.matches(each))
            except ToolServerUnreachable as error:
                problem = error.message
            else:
                self._lists[entry.label] = tools
                return ToolsListed(entry.label, tools)
        self._failures[entry.label] = problem
        return ToolsListed(entry.label, error=problem)

    def _server(self, label: str) -> ToolServer | None:
        return None if self._servers is None else self._servers.find(label)

    def applied(self, request: GenerationRequest) -> tuple[GenerationRequest, ServerTools]:
        """The request with the choice among these tools, and the tools; when `listing` has ended.

        Raises:
            InvalidRequest: `tool_choice` names a tool that its server does not have.
            ToolServerUnreachable: a call is demanded, and the server that has the tool could not be asked.
        """
        tools = self._tools({tool.name for tool in request.output.tools})
        output = request.output
        choice = output.tool_choice
        is_demanded = choice.mode is ToolChoiceMode.REQUIRED
        missing = [each.server for each in self._asked.chosen if each.server in self._failures]
        if is_demanded and self._failures and (missing or not (tools or output.tools)):
            raise ToolServerUnreachable(self._failures[(missing or list(self._failures))[0]])
        choice = chosen_on_servers(choice, self._asked.chosen if not missing else (), self.names)
        approved = self._asked.approved if not request.counts_only else ()
        request = replace(request, output=replace(output, tool_choice=choice))
        return request, ServerTools(tools, tuple(each.approved for each in approved), self._asked.max_calls)

    def _tools(self, taken: Collection[str]) -> tuple[McpTool, ...]:
        """All that are asked for and allowed, each under a name of its own."""
        tools: dict[str, McpTool] = {}
        for entry in self._asked.entries:
            server = self._server(entry.label)
            for listed in self._lists.get(entry.label, ()):
                own = listed.tool.name
                if server is None or not server.allows(own) or not entry.allowed.matches(listed):
                    continue
                name = _free(server_tool_name(entry.label, own), {*taken, *tools})
                needs_approval = server.needs_approval(own, entry.wants_approval(listed))
                tools[name] = McpTool(replace(listed.tool, name=name), server, own, needs_approval)
                self.names[name] = ServersTool(entry.label, own)
        return tuple(tools.values())


def _free(name: str, taken: Collection[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name[: 63 - len(str(number))]}_{number}"
    return free
