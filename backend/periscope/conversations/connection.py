"""McpConnection: one MCP server, kept connected by a task of its own. Event loop only; needs the MCP SDK."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Final

import anyio
import httpx2
from mcp import Client, MCPError, StdioServerParameters, stdio_client, types
from mcp.client import Transport
from mcp.client.session import IncomingMessage
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost

from periscope.conversations.program_messages import ProgramMessages
from periscope.conversations.results import Held, result_of, wanted_of
from periscope.conversations.servers import HttpServer, McpServer, StdioServer
from periscope.core import CallOutcome, JSONObject, ListedTool, Tool, ToolResult

logger = logging.getLogger(__name__)

#: A server that says nothing is asked for its tools so often: whether it lives, and for those that do not tell changes.
CHECK_INTERVAL_S: Final = 30.0
#: Between attempts to connect, doubled each time up to the last one, and shortened by up to a half by chance.
FIRST_BACK_OFF_S: Final = 0.5
MAX_BACK_OFF_S: Final = 30.0
#: A server may list so many tools; further ones are not offered.
MAX_TOOLS: Final = 512
#: Keywords of a JSON schema that say something of properties which `properties` does not list.
_OPENING: Final = frozenset(
    [
        "additionalProperties",
        "unevaluatedProperties",
        "patternProperties",
        "propertyNames",
        "minProperties",
        "dependentSchemas",
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
        "if",
    ]
)


class ServerState(StrEnum):
    """CONNECTING -> READY -> CONNECTING when the connection breaks; DOWN between attempts; CLOSED at the end."""

    CONNECTING = "connecting"
    READY = "ready"
    DOWN = "down"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """How an MCP server is.

    Attributes:
        problem: why the last attempt to connect failed or the connection broke, with what the program of a stdio server
            wrote last; None while it is ready.
        num_tools: those that it has, or had last.
    """

    name: str
    state: ServerState
    problem: str | None
    num_tools: int


class McpConnection:
    """A `ToolSource` over one server.

    Owns a task that holds the connection from its opening to its end, because the SDK's scopes must be left by the task
    that entered them. The task lists the tools, again when the server says that they have changed, and connects again
    with back-off when the server is gone. A call that finds it gone has an attempt made at once and waits for that one.
    The tools of a server that is gone stay, so that the prompt stays the same.

    Args:
        on_change: told why there is no connection, after each attempt that failed; None once there is one.
    """

    def __init__(self, server: McpServer, on_change: Callable[[str | None], None] = lambda _: None) -> None:
        self._server = server
        self._on_change = on_change
        self._scope = anyio.CancelScope()
        self._task: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._listed: tuple[ListedTool, ...] = ()
        self._state = ServerState.CONNECTING
        self._problem: str | None = None
        self._last_line = ""  # of what the program of a stdio server wrote
        self._told: str | None = None
        self._refusal = ""  # the newest HTTP error of the attempt to connect, which the SDK's own errors do not name
        self._attempted = asyncio.Event()
        self._look = asyncio.Event()
        self._retry = asyncio.Event()

    @property
    def name(self) -> str:
        return self._server.name

    @property
    def keeps_names(self) -> bool:
        return False

    @property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(each.tool for each in self._listed)

    @property
    def listed(self) -> tuple[ListedTool, ...]:
        """The tools that it has, or had last, with what it says of them. Does not wait."""
        return self._listed

    @property
    def health(self) -> ServerHealth:
        """How the server is. Does not wait."""
        problem = self._problem
        if problem is not None and self._last_line:
            problem = f"{problem}; it wrote last: {self._last_line}"
        return ServerHealth(self.name, self._state, problem, len(self._listed))

    @property
    def problem(self) -> str | None:
        """That of `health` in words for everyone: what the program wrote is for who runs it."""
        return self._problem

    def start(self) -> None:
        """Start the task that connects. Returns at once."""
        self._task = asyncio.create_task(self._run(), name=f"MCP server {self.name}")

    async def attempted(self) -> None:
        """Wait until the attempt to connect that is under way has ended, well or not."""
        await self._attempted.wait()

    async def is_ready(self) -> bool:
        """Whether the server is there now; one that was not is tried again at once, and that attempt waited for."""
        if self._state is ServerState.DOWN:
            self._attempted.clear()
            self._retry.set()
        await self.attempted()
        return self._client is not None

    async def close(self) -> None:
        """End the connection, and the process of a stdio server, within some seconds; even if this is cancelled."""
        self._scope.cancel()
        if self._task is None:
            return
        is_cancelled = False
        while not self._task.done():
            try:
                await asyncio.wait([self._task])
            except asyncio.CancelledError:
                is_cancelled = True
        if is_cancelled:
            raise asyncio.CancelledError

    async def call(self, name: str, arguments: JSONObject) -> ToolResult:
        """See `ToolSource`. A call is never sent twice, because it may have had effects."""
        timeout_s = self._server.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                if not await self.is_ready() or self._client is None:
                    return ToolResult.told(
                        f"The server of this tool cannot be reached now: {self._problem}.", CallOutcome.UNREACHABLE
                    )
                return await _called(self._client, name, arguments)
        except TimeoutError:
            self._suspect()
            return ToolResult.told(f"The tool did not answer within {timeout_s:g} seconds.", CallOutcome.TIMED_OUT)
        except MCPError as error:
            self._suspect()
            return ToolResult.told(f"The tool failed: {self._reason(error)}.", _outcome_of(error))
        except Exception as error:  # noqa: BLE001 - whatever a server answers, it must not end the conversation
            self._suspect()
            return ToolResult.told(f"The tool failed: {self._reason(error)}.", CallOutcome.TOOL_ERROR)

    def _suspect(self) -> None:
        """A call failed: look whether the server is still there, before the next call is sent to it."""
        if self._state is ServerState.READY:
            self._attempted.clear()
            self._look.set()

    async def _run(self) -> None:
        with self._scope:
            num_failures = 0
            while True:
                begun = anyio.current_time()
                was_ready = await self._attempt()
                has_lasted = was_ready and anyio.current_time() - begun > MAX_BACK_OFF_S
                num_failures = 0 if has_lasted else num_failures + 1
                self._log(was_ready=was_ready)
                if not was_ready:
                    self._attempted.set()
                if num_failures:
                    self._state = ServerState.DOWN
                    await self._back_off(num_failures)
        self._state, self._client = ServerState.CLOSED, None
        self._problem = "the session is closed"
        self._attempted.set()

    def _log(self, *, was_ready: bool) -> None:
        """Say why there is no connection; in the log once for as long as the reason stays the same."""
        problem = self.health.problem
        if was_ready or problem != self._told:
            logger.warning("MCP server %s (%s): %s", self.name, self._server.place, problem)
        self._told = problem
        self._on_change(self._problem)

    async def _note_refusal(self, response: httpx2.Response) -> None:
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            is_key = response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
            self._refusal = f" (HTTP {response.status_code}{': check its auth_token' if is_key else ''})"

    async def _back_off(self, num_failures: int) -> None:
        longest = min(MAX_BACK_OFF_S, FIRST_BACK_OFF_S * 2 ** min(num_failures - 1, 10))
        with anyio.move_on_after(longest * random.uniform(0.5, 1)):
            await self._retry.wait()
        self._retry.clear()

    async def _attempt(self) -> bool:
        """Connect, and stay connected until that breaks. Sets the problem.

        Returns:
            Whether the connection was ready before it broke.
        """
        self._state, self._refusal = ServerState.CONNECTING, ""
        was_ready = False
        try:
            with anyio.CancelScope(deadline=anyio.current_time() + self._server.connect_timeout_s) as connecting:
                async with self._opened() as client:
                    await self._discover(client)
                    connecting.deadline = float("inf")
                    was_ready = True
                    await self._stay(client)
            self._problem = f"no connection within {self._server.connect_timeout_s:g} seconds"
        except Exception as error:  # noqa: BLE001 - transports raise what they like, in groups, too
            self._problem = self._reason(error) + ("" if was_ready else self._refusal)
        finally:
            self._client = None
            self._attempted.clear()
        return was_ready

    async def _stay(self, client: Client) -> None:
        """Serve calls until the server is gone, which is raised."""
        self._client, self._state, self._problem = client, ServerState.READY, None
        self._on_change(None)
        self._attempted.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen, client)
            while True:
                with anyio.move_on_after(CHECK_INTERVAL_S):
                    await self._look.wait()
                self._look.clear()
                await self._discover(client)
                self._attempted.set()

    async def _discover(self, client: Client) -> None:
        """Ask for the tools that there are now.

        Raises:
            MCPError, TimeoutError: the server does not answer.
        """
        found: list[ListedTool] = []
        with anyio.fail_after(self._server.connect_timeout_s):
            page = await client.list_tools(cache_mode="refresh")
            found += map(_listed, page.tools)
            while page.next_cursor is not None and page.tools and len(found) < MAX_TOOLS:
                page = await client.list_tools(cursor=page.next_cursor, cache_mode="refresh")
                found += map(_listed, page.tools)
        if len(found) > MAX_TOOLS:
            logger.warning("MCP server %s has more than %d tools; the rest is not offered", self.name, MAX_TOOLS)
        self._listed = tuple(found[:MAX_TOOLS])

    async def _listen(self, client: Client) -> None:
        """Hear of changed tools on servers of protocol 2026-07-28 and later; older ones tell them unasked."""
        back_off_s = FIRST_BACK_OFF_S
        while True:
            try:
                async with client.listen(tools_list_changed=True) as changes:
                    self._look.set()  # of what changed before, nobody tells
                    async for _ in changes:
                        back_off_s = FIRST_BACK_OFF_S
                        self._look.set()
            except (ListenNotSupportedError, MCPError):
                return
            except (SubscriptionLost, TimeoutError):
                self._look.set()
            await anyio.sleep(back_off_s)
            back_off_s = min(MAX_BACK_OFF_S, 2 * back_off_s)

    async def _hear(self, message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._look.set()

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[Client, None]:
        server = self._server
        if isinstance(server, StdioServer):
            parameters = StdioServerParameters(
                command=server.command, args=list(server.args), env=dict(server.env), cwd=server.cwd
            )
            messages = ProgramMessages()
            try:
                async with self._client_over(stdio_client(parameters, messages.file)) as client:
                    yield client
            finally:
                messages.close()
                self._last_line = messages.last_line
            return
        # A long answer is bounded by the timeout of its call: here only the silence on a stream that stays open is.
        timeout = httpx2.Timeout(server.connect_timeout_s, read=None)
        verify = await asyncio.to_thread(_tls, server)
        hooks = {"response": [self._note_refusal]}
        async with (
            httpx2.AsyncClient(headers=server.sent_headers, timeout=timeout, verify=verify, event_hooks=hooks) as http,
            self._client_over(streamable_http_client(server.url, http_client=http)) as client,
        ):
            yield client

    def _reason(self, error: BaseException) -> str:
        """The first error of a group, in a few words."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        is_over = isinstance(error, MCPError) and error.code == types.CONNECTION_CLOSED
        if is_over and isinstance(self._server, StdioServer):
            return "its program has ended"
        return str(error).rstrip(".") or type(error).__name__

    def _client_over(self, transport: Transport) -> Client:
        return Client(transport, message_handler=self._hear)


async def _called(client: Client, name: str, arguments: JSONObject) -> ToolResult:
    """The result of a call, with the texts and images that it links to: read by this session, as links ask for."""
    told = await client.call_tool(name, arguments)
    linked: dict[str, Sequence[Held]] = {}
    for uri in wanted_of(told):
        try:
            linked[uri] = (await client.read_resource(uri)).contents
        except MCPError as error:
            logger.info("the result of %s links to what cannot be read: %s", name, error.message)
    return result_of(told, name, linked)


def _tls(server: HttpServer) -> ssl.SSLContext:
    """Reads the file of authorities."""
    context = ssl.create_default_context(cafile=server.ca_file)
    if not server.checks_certificate:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _listed(told: types.Tool) -> ListedTool:
    tool = Tool(told.name, told.description or told.title or "", _closed(told.input_schema))
    notes = told.annotations
    return ListedTool(tool, None if notes is None else notes.model_dump(by_alias=True, exclude_none=True))


def _closed(schema: JSONObject) -> JSONObject:
    """The schema without further properties, where it lists some or none and is silent about others.

    Nearly every server means that, and a model that must call fills in what a grammar lets it.
    """
    unlisted = set(schema.get("required", ())) - schema.get("properties", {}).keys()
    return schema if unlisted or _OPENING & schema.keys() else {**schema, "additionalProperties": False}


def _outcome_of(error: MCPError) -> CallOutcome:
    if error.code == types.CONNECTION_CLOSED:
        return CallOutcome.UNREACHABLE
    return CallOutcome.TIMED_OUT if error.code == types.REQUEST_TIMEOUT else CallOutcome.TOOL_ERROR
