"""ResponsesSession: conversations over a model with tools of MCP servers and of this program. Event loop only."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from periscope.conversations.conversation import Answering, Conversation, ConversationOptions, ConversationResult
from periscope.conversations.functions import FunctionTools
from periscope.conversations.servers import McpServer
from periscope.conversations.tools import ToolSource, routes_of
from periscope.core import GenerationParams, Message, Tool
from periscope.errors import ConfigError

if TYPE_CHECKING:
    from types import TracebackType

    from periscope.conversations.connection import McpConnection, ServerHealth


class _State(StrEnum):
    """States of a session, which it goes through once, in this order."""

    NEW = "new"
    OPEN = "open"
    CLOSED = "closed"


class ResponsesSession:
    """Owns the connections to MCP servers for as long as its `async with` block runs, and leads conversations.

    Entering waits for the first attempt to connect to every server, side by side. A server that cannot be reached is
    told in the log and in `health`, tried again in the background, and its tools are offered from the next turn on.
    Leaving ends all connections and the processes of stdio servers, also when it is cancelled.

    Args:
        answering: a `ChatService` (`Runtime.service`), which describes images in results to a text model as it does any
            other; or a text generator by itself, which is told that it cannot see them.
        servers: each with a name of its own. They need `pip install 'mlx-periscope[mcp]'`.
        functions: Python functions that the model may call; see `FunctionTools`.
        model: configured name or alias; "" = the first one.
        params: for every turn.

    Raises:
        ConfigError: two servers have one name, a function cannot be a tool, or the MCP SDK is not installed.
    """

    def __init__(
        self,
        answering: Answering,
        servers: Sequence[McpServer] = (),
        functions: Sequence[Callable[..., Any]] = (),
        *,
        model: str = "",
        params: GenerationParams = GenerationParams(),
    ) -> None:
        self._answering = answering
        self._model = model
        self._params = params
        self._connections = _connections(servers)
        self._sources: list[ToolSource] = [FunctionTools(functions), *self._connections]
        self._state = _State.NEW

    async def __aenter__(self) -> Self:
        if self._state is not _State.NEW:
            raise RuntimeError(f"This session is {self._state} already: make another one.")
        self._state = _State.OPEN
        for connection in self._connections:
            connection.start()
        try:
            await asyncio.gather(*(connection.attempted() for connection in self._connections))
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all connections and processes. Idempotent."""
        self._state = _State.CLOSED
        await ended(asyncio.create_task(connection.close()) for connection in self._connections)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What the model is offered now, under these names. Does not wait."""
        return tuple(route.tool for route in routes_of(self._sources).values())

    @property
    def health(self) -> tuple[ServerHealth, ...]:
        """How each server is, in their order. Does not wait."""
        return tuple(connection.health for connection in self._connections)

    async def run_conversation(
        self, messages: Sequence[Message], options: ConversationOptions = ConversationOptions()
    ) -> ConversationResult:
        """Have the model answer, run its calls side by side, and go on until it answers without one.

        Any number of conversations may run at once. Each turn is a request of its own: nothing of the model is held
        while tools run. Cancelling ends the answer or the calls that are under way.

        Raises:
            PeriscopeError: the model could not be asked; see `ChatService.stream`. What goes wrong with a tool is a
                result that the model reads.
            RuntimeError: the session is not open.
        """
        if self._state is not _State.OPEN:
            raise RuntimeError(f"This session is {self._state}: its servers are there inside of `async with` alone.")
        conversation = Conversation(
            self._answering, self._sources, messages, options, model=self._model, params=self._params
        )
        return await conversation.run()


def _connections(servers: Sequence[McpServer]) -> tuple[McpConnection, ...]:
    if not servers:
        return ()
    name, count = Counter(server.name for server in servers).most_common(1)[0]
    if count > 1:
        raise ConfigError((f"Two MCP servers are called {name}: give each a name of its own.",))
    return tuple(map(connection_class(), servers))


def connection_class() -> type[McpConnection]:
    """`McpConnection`, imported on first use.

    Raises:
        ConfigError: the MCP SDK is not installed.
    """
    try:
        from periscope.conversations.connection import McpConnection
    except ModuleNotFoundError as error:
        raise ConfigError((f"MCP servers need {error.name}: pip install 'mlx-periscope[mcp]'.",)) from error
    return McpConnection


async def ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Wait until all tasks have ended, which being cancelled does not shorten."""
    waited, is_cancelled = list(tasks), False
    while any(not task.done() for task in waited):
        try:
            await asyncio.wait(waited)
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError
