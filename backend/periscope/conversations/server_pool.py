"""McpServers: the MCP servers of a configuration, connected to when a request first needs them. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from periscope.conversations.servers import McpServer
from periscope.conversations.session import connection_class, ended
from periscope.core import CallOutcome, JSONObject, ListedTool, ToolResult
from periscope.errors import ToolServerUnreachable
from periscope.status import ToolServerStatus

if TYPE_CHECKING:
    from periscope.conversations.connection import McpConnection

#: Which calls wait for the client's approval: as a request says (all, if it says nothing), all, or those that a request
#: asks for.
ApprovalRule: TypeAlias = Literal["request", "always", "never"]
#: Told what is wrong in a respect, as a sentence; None = nothing is.
Note: TypeAlias = Callable[[str, str | None], None]


@dataclass(frozen=True, slots=True)
class ServerTerms:
    """What requests may do with one MCP server.

    Attributes:
        server: where it is; None = it cannot be used, and `problem` says why.
        allowed_tools: names of its tools that may be called; None = all.
        approval: see `ApprovalRule`.
        approval_for: names of tools whose calls wait for an approval, whatever a request says.
    """

    name: str
    server: McpServer | None
    problem: str | None = None
    allowed_tools: frozenset[str] | None = None
    approval: ApprovalRule = "request"
    approval_for: frozenset[str] = frozenset()


class KeptServer:
    """One MCP server for as long as its entry stays the same. Owns its connection, which begins with the first use."""

    def __init__(self, terms: ServerTerms, note: Note) -> None:
        self.terms = terms
        self._note = note
        self._connection: McpConnection | None = None
        self._is_closed = False
        self._tell(terms.problem)

    @property
    def name(self) -> str:
        return self.terms.name

    @property
    def status(self) -> ToolServerStatus:
        """How it is. Does not wait."""
        if self._connection is None:
            return ToolServerStatus(self.name, "idle" if self.terms.problem is None else "down", self.terms.problem, 0)
        health = self._connection.health
        return ToolServerStatus(self.name, health.state, health.problem, health.num_tools)

    def allows(self, tool: str) -> bool:
        """Whether the file allows the tool."""
        return self.terms.allowed_tools is None or tool in self.terms.allowed_tools

    def needs_approval(self, tool: str, wanted: bool | None) -> bool:
        """Whether a call of the tool waits for the client's approval.

        Args:
            wanted: what the request says; None = nothing.
        """
        if self.terms.approval == "always" or tool in self.terms.approval_for:
            return True
        return self.terms.approval == "request" if wanted is None else wanted

    async def listed(self) -> tuple[ListedTool, ...]:
        """The server's tools that the file allows. Connects if there is no connection.

        Raises:
            ToolServerUnreachable: it cannot be reached.
        """
        connection = self._connected()
        if connection is None or not await connection.is_ready():
            problem = self.terms.problem if connection is None else connection.problem
            raise ToolServerUnreachable(_unreachable(self.name, problem))
        return tuple(each for each in connection.listed if self.allows(each.tool.name))

    async def call(self, tool: str, arguments: JSONObject) -> ToolResult:
        """Run a tool. Whatever fails is told in the result. Cancellable at any await."""
        if not self.allows(tool):
            return ToolResult.told(f"The tool {tool} may not be called here: nothing was run.", CallOutcome.BLOCKED)
        connection = self._connected()
        if connection is None:
            problem = self.terms.problem or "it is not configured any more"
            return ToolResult.told(f"The server of this tool cannot be used: {problem}.", CallOutcome.UNREACHABLE)
        return await connection.call(tool, arguments)

    def leave(self) -> None:
        """It is not configured any more: nothing is wrong with it from now on."""
        self._tell(None)
        self._is_closed = True

    async def close(self) -> None:
        """End the connection and the server's process, even if this is cancelled. Idempotent."""
        self._is_closed = True
        if self._connection is not None:
            await self._connection.close()

    def _tell(self, problem: str | None) -> None:
        if not self._is_closed:
            self._note(f"MCP server {self.name}", None if problem is None else _unreachable(self.name, problem))

    def _connected(self) -> McpConnection | None:
        if self._connection is None and self.terms.server is not None and not self._is_closed:
            self._connection = connection_class()(self.terms.server, self._tell)
            self._connection.start()
        return self._connection


def _unreachable(name: str, problem: str | None) -> str:
    return f"The MCP server {name} cannot be reached: {problem}."


class McpServers:
    """Owns the MCP servers of the configuration: those of now, and those that are being closed.

    Args:
        note: told of each server that cannot be reached, and when it can be again.
    """

    def __init__(self, terms: Mapping[str, ServerTerms], note: Note) -> None:
        self._note = note
        self._servers = {name: KeptServer(each, note) for name, each in terms.items()}
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all servers, in the order of the file."""
        return tuple(self._servers)

    def find(self, name: str) -> KeptServer | None:
        """The server of this name; None if there is none."""
        return self._servers.get(name)

    @property
    def statuses(self) -> tuple[ToolServerStatus, ...]:
        """How each server is, in the order of the file. Does not wait."""
        return tuple(server.status for server in self._servers.values())

    def configure(self, terms: Mapping[str, ServerTerms]) -> tuple[str, ...]:
        """Have these servers from now on. Those whose entries are as before keep their connections. Does not wait.

        Calls of a server that is gone get a result that says so.

        Returns:
            The names of those that are new, gone, or have another entry.
        """
        before, self._servers = self._servers, {}
        for name, old in before.items():
            if old.terms != terms.get(name):
                old.leave()
        for name, each in terms.items():
            kept = before.get(name)
            self._servers[name] = kept if kept is not None and kept.terms == each else KeptServer(each, self._note)
        for name, old in before.items():
            if self._servers.get(name) is not old:
                closing = asyncio.create_task(old.close(), name=f"close MCP server {name}")
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
        return tuple(name for name in {**before, **self._servers} if before.get(name) is not self._servers.get(name))

    async def close(self) -> None:
        """End all connections and processes of servers. Idempotent."""
        closing = [asyncio.create_task(server.close()) for server in self._servers.values()]
        await ended([*closing, *self._closing])
