"""The MCP server and its three tools. Needs the MCP SDK; event loop only."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable
from contextlib import aclosing
from importlib.metadata import version
from typing import Annotated, Any, Final, TypeAlias, TypeVar

from mcp import MCPError, types
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field, ValidationError

from periscope.core import Finished, FinishReason, ImagePart, McpProgress, TextDelta
from periscope.errors import PeriscopeError
from periscope.mcp_server.exchange import exchange_of
from periscope.mcp_server.folders import AllowedFolders
from periscope.mcp_server.sight import Sight

#: How often a client is told that a call goes on. Clients whose timeout is reset by progress need less than a minute.
PROGRESS_INTERVAL_S: Final = 2.0
_ROOTS_TIMEOUT_S: Final = 5.0
_MAX_QUESTION: Final = 20_000
_INSTRUCTIONS: Final = (
    "Periscope sees images for you on the user's own machine. Use these tools whenever you are given an image, a "
    "screenshot or the path of an image file and cannot see it yourself."
)
_READS_ONLY: Final = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)

T = TypeVar("T")
ImageSource: TypeAlias = Annotated[
    str,
    Field(
        description="The image: a data: URL or base64, the path or file: URL of a file in a folder that the user has "
        "allowed, or an http(s) address where Periscope's settings allow these."
    ),
]
Question: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=_MAX_QUESTION, description="What to find out about the image.")
]


class Description(BaseModel):
    """An image in words."""

    description: str = Field(description="What the image shows.")
    text: str = Field(description="The text that stands in the image, line by line; empty if none was read.")
    width: int = Field(description="In pixels.")
    height: int = Field(description="In pixels.")
    answer: str | None = Field(default=None, description="The answer to the question, if one was asked.")


class ReadText(BaseModel):
    """The text in an image."""

    text: str = Field(description="Verbatim, line by line; empty if none was read.")


class Answer(BaseModel):
    """What was found out about an image."""

    answer: str
    is_complete: bool = Field(description="False if the answer was cut off at the model's longest answer.")


class ImageTools:
    """Owns nothing; the tools' work over a `Sight` and the allowed folders. Any number of calls may run at once."""

    def __init__(self, sight: Sight, folders: AllowedFolders) -> None:
        self._sight = sight
        self._folders = folders

    async def describe_image(
        self, image: ImageSource, ctx: Context[Any, Any], question: Question | None = None
    ) -> Description:
        """Describe an image in words, with the text that stands in it; with a question, answer that as well."""
        part = await self._image(image, ctx)
        seen = await self._work(ctx, "Describing the image", self._sight.caption(part))
        if seen.text is None:
            raise ToolError(f"The image could not be described: {seen.error or 'the captioner said nothing'}.")
        told = None if question is None else await self._work(ctx, "Answering", self._answer(part, question))
        return Description(
            description=seen.text,
            text=seen.verbatim or "",
            width=seen.width,
            height=seen.height,
            answer=told and told.answer,
        )

    async def read_text(self, image: ImageSource, ctx: Context[Any, Any]) -> ReadText:
        """Read the text in an image to the letter: error messages, code, labels, documents."""
        part = await self._image(image, ctx)
        seen = await self._work(ctx, "Reading the image", self._sight.read(part))
        if seen.error is not None:
            raise ToolError(f"The image could not be read: {seen.error}.")
        return ReadText(text=seen.verbatim or "")

    async def ask_about_image(self, image: ImageSource, question: Question, ctx: Context[Any, Any]) -> Answer:
        """Answer a question about an image."""
        part = await self._image(image, ctx)
        return await self._work(ctx, "Answering", self._answer(part, question))

    async def _image(self, source: str, ctx: Context[Any, Any]) -> ImagePart:
        exchange = exchange_of(ctx.request_context.request)
        if exchange is None:
            return await _told(asyncio.to_thread(self._folders.image, source, await _roots(ctx)))
        # Whoever calls over HTTP shares no folders: they might be of another machine, and would open any of this one.
        return await _told(asyncio.to_thread(self._folders.image, exchange.take_image()))

    async def _answer(self, part: ImagePart, question: str) -> Answer:
        text, finished = "", None
        async with aclosing(self._sight.ask(part, question)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    text += event.text
                elif isinstance(event, Finished):
                    finished = event
        if finished is None:
            raise ToolError("The answer ended before it was complete. Try again.")
        return Answer(answer=text.strip(), is_complete=finished.finish_reason is not FinishReason.LENGTH)

    async def _work(self, ctx: Context[Any, Any], doing: str, work: Awaitable[T]) -> T:
        """The result of `work`; meanwhile the client is told which model loads, or how long it takes already."""
        telling = asyncio.create_task(self._tell_progress(ctx, doing))
        try:
            return await _told(work)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _tell_progress(self, ctx: Context[Any, Any], doing: str) -> None:
        started_at, exchange = time.monotonic(), exchange_of(ctx.request_context.request)
        while True:
            elapsed_s = time.monotonic() - started_at
            try:
                loading = await self._sight.loading()
            except PeriscopeError:  # the call itself says what is wrong
                loading = None
            message = loading or f"{doing}, {elapsed_s:.0f} s."
            if exchange is None:
                await ctx.report_progress(elapsed_s, None, message)
            else:
                exchange.tell(McpProgress(elapsed_s, message))
            await asyncio.sleep(PROGRESS_INTERVAL_S)


class ImageServer(MCPServer):
    """Refuses arguments that a tool does not have, which the SDK drops without a word, and says which are wrong."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> types.CallToolResult | types.InputRequiredResult:
        """Call a tool, as the SDK's method of the same name does.

        Raises:
            ToolError: also for an unknown argument, and for wrong ones in words for a model, not for a developer.
        """
        known = next((tool.input_schema["properties"] for tool in await self.list_tools() if tool.name == name), None)
        unknown = [] if known is None else sorted(set(arguments) - set(known))
        if known is not None and unknown:
            raise ToolError(f"{name} has no argument {unknown[0][:64]!r}. It takes {', '.join(known)}.")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            wrong = error.__cause__
            if not isinstance(wrong, ValidationError) or isinstance(error, UnexpectedToolError):
                raise
            raise ToolError(f"{name}: {_told_faults(wrong)}") from wrong

    def transport(self) -> StreamableHTTPSessionManager:
        """A transport for one HTTP request: whoever runs it owns all of its tasks, and no session outlives it."""
        return StreamableHTTPSessionManager(
            self._lowlevel_server,
            json_response=True,
            stateless=True,
            max_request_body_size=sys.maxsize,  # whoever has read the request has bounded it
        )


def image_server(sight: Sight, folders: AllowedFolders) -> ImageServer:
    """The server with its tools, to be run over a transport."""
    server = ImageServer(
        "periscope",
        title="Periscope",
        instructions=_INSTRUCTIONS,
        version=version("mlx-periscope"),
        log_level="WARNING",
        subscriptions=False,
    )
    tools = ImageTools(sight, folders)
    for tool in (tools.describe_image, tools.read_text, tools.ask_about_image):
        server.add_tool(tool, annotations=_READS_ONLY)
    return server


def _told_faults(wrong: ValidationError) -> str:
    """Each argument at fault and what is wrong with it, without its value."""
    return " ".join(
        f"`{'.'.join(map(str, fault['loc']))}` is "
        + ("missing." if fault["type"] == "missing" else f"wrong: {fault['msg']}.")
        for fault in wrong.errors(include_url=False, include_context=False, include_input=False)
    )


async def _told(work: Awaitable[T]) -> T:
    """The result; what Periscope says instead becomes words that the agent's model reads.

    Raises:
        ToolError: for every `PeriscopeError`.
    """
    try:
        return await work
    except PeriscopeError as error:
        raise ToolError(error.message) from None


async def _roots(ctx: Context[Any, Any]) -> list[str]:
    """The folders that the client shares, as URLs; none if it does not say.

    Roots are deprecated in MCP 2026-07-28, whose clients cannot be asked within a call. Today's clients have them.
    """
    session, capabilities = ctx.request_context.session, ctx.client_capabilities
    if capabilities is None or capabilities.roots is None:
        return []
    try:
        listed = await session.send_request(types.ListRootsRequest(), types.ListRootsResult, _ROOTS_TIMEOUT_S)
    except (MCPError, ValidationError):
        return []
    return [str(root.uri) for root in listed.roots]
