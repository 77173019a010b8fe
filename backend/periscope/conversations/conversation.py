"""Conversation: the model answers, its calls are run, it reads the results and goes on. Event loop only.

It knows neither MCP nor the pool. No lease is held while tools run: each turn is a request of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

from periscope.conversations.answers import Answer
from periscope.conversations.tools import Route, ToolSource, routes_of
from periscope.core import (
    CallOutcome,
    GenerationParams,
    GenerationRequest,
    Message,
    OutputEvent,
    OutputSpec,
    Part,
    Role,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
    arguments_object,
    new_id,
)
from periscope.errors import InvalidRequest, RequestError

MAX_TURNS: Final = 1000
#: Calls of one answer that run side by side; the others wait for them.
MAX_CALLS_AT_ONCE: Final = 16


class Answering(Protocol):
    """Answers requests: a `ChatService`, or any text generator by itself. Event loop only."""

    def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
        """The request's events, `Finished` last. `aclose()` at any point frees what the request holds."""
        ...


class StopReason(StrEnum):
    """Why a conversation ended.

    Attributes:
        ANSWERED: the model answered without a call.
        LENGTH: its answer was cut off by `max_tokens` or the end of the context.
        MAX_TURNS: it wanted to call tools in the last turn that was allowed; those calls were not run.
        TIMED_OUT: `timeout_s` was over; the message is what there was of the answer by then.
    """

    ANSWERED = "answered"
    LENGTH = "length"
    MAX_TURNS = "max_turns"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True)
class ExecutedCall:
    """A call of the model, and what became of it.

    Attributes:
        turn: in which it was made, from 1.
        call: as the model wrote it.
        source: the server that has the tool, or `python`; None = nothing was run.
        parts: what the model read.
        duration_s: from the call to its result.
    """

    turn: int
    call: ToolCall
    source: str | None
    outcome: CallOutcome
    parts: tuple[Part, ...]
    duration_s: float


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """The model is asked, for the `turn`-th time."""

    turn: int


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A call of the model is dealt with now."""

    turn: int
    call: ToolCall


#: What watchers of a conversation hear: the model's own events, and these.
ConversationEvent: TypeAlias = OutputEvent | TurnStarted | CallStarted | ExecutedCall


@dataclass(frozen=True, slots=True)
class ConversationOptions:
    """How a conversation is led.

    Attributes:
        max_turns: answers of the model, the last one included; 1 to `MAX_TURNS`.
        allowed_tools: names of the tools that may be called, as the model is offered them; others are not offered, and
            calls of them are blocked. None = all may.
        timeout_s: seconds for the whole conversation; None = without bound.
        on_event: hears each event, on the event loop; it must not wait. What it raises ends the conversation.
        tool_choice: for all turns, or a function that gives it for a turn, counted from 1.

    Raises:
        InvalidRequest: a value is out of bounds.
    """

    max_turns: int = 10
    allowed_tools: Collection[str] | None = None
    timeout_s: float | None = None
    on_event: Callable[[ConversationEvent], None] = lambda _: None
    tool_choice: ToolChoice | Callable[[int], ToolChoice] = ToolChoice()

    def __post_init__(self) -> None:
        if not 1 <= self.max_turns <= MAX_TURNS:
            raise InvalidRequest(
                f"`max_turns` must be between 1 and {MAX_TURNS}, got {self.max_turns}.", param="max_turns"
            )
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise InvalidRequest(f"`timeout_s` must be above 0, got {self.timeout_s}.", param="timeout_s")
        if isinstance(self.allowed_tools, str):
            raise InvalidRequest("`allowed_tools` is a list of names, not one text.", param="allowed_tools")

    def allows(self, name: str) -> bool:
        """Whether the tool may be called."""
        return self.allowed_tools is None or name in self.allowed_tools

    def choice(self, turn: int) -> ToolChoice:
        """The `tool_choice` of a turn; turns count from 1."""
        return self.tool_choice if isinstance(self.tool_choice, ToolChoice) else self.tool_choice(turn)


@dataclass(frozen=True, slots=True)
class ConversationResult:
    """A conversation that has ended.

    Attributes:
        message: the model's last answer. After `MAX_TURNS` it has the calls that were not run.
        tool_calls: those that were dealt with, in order.
        turns: how often the model was asked.
        messages: what came after the messages that the conversation began with, to go on from. Calls that were not run
            stand in the last one without results.
        usage: of all turns together.
    """

    message: Message
    tool_calls: tuple[ExecutedCall, ...]
    turns: int
    stop_reason: StopReason
    messages: tuple[Message, ...]
    usage: Usage


class Conversation:
    """Owns one conversation from its first turn to its end.

    Args:
        sources: asked for their tools before each turn, so that new ones are offered from the next turn on.
    """

    def __init__(
        self,
        answering: Answering,
        sources: Sequence[ToolSource],
        messages: Sequence[Message],
        options: ConversationOptions,
        *,
        model: str = "",
        params: GenerationParams = GenerationParams(),
    ) -> None:
        self._answering = answering
        self._sources = sources
        self._given = tuple(messages)
        self._options = options
        self._model = model
        self._params = params
        self._new: list[Message] = []
        self._num_results = 0  # messages at the end of the conversation, which the model has not read yet
        self._calls: list[ExecutedCall] = []
        self._usage = Usage()
        self._turn = 0
        self._answer = Answer()
        self._places = asyncio.Semaphore(MAX_CALLS_AT_ONCE)

    async def run(self) -> ConversationResult:
        """Lead it to its end.

        Raises:
            PeriscopeError: the model could not be asked.
        """
        try:
            async with asyncio.timeout(self._options.timeout_s) as clock:
                reason = await self._turns()
        except TimeoutError:
            if not clock.expired():
                raise
            reason = StopReason.TIMED_OUT
        message = self._answer.message
        if self._answer.finished is None and (message.parts or message.reasoning):
            self._new.append(message)
        return ConversationResult(message, tuple(self._calls), self._turn, reason, tuple(self._new), self._usage)

    async def _turns(self) -> StopReason:
        while True:
            self._turn += 1
            self._options.on_event(TurnStarted(self._turn))
            routes = routes_of(self._sources)
            await self._ask_or_drop_results(routes)
            self._usage = self._usage.plus(self._answer.usage)
            self._new.append(self._answer.message)
            if not self._answer.has_calls:
                return StopReason.LENGTH if self._answer.is_cut_off else StopReason.ANSWERED
            if self._turn == self._options.max_turns:
                return StopReason.MAX_TURNS
            await self._run_calls(self._answer.message.tool_calls, routes)

    async def _ask_or_drop_results(self, routes: Mapping[str, Route]) -> None:
        """Ask the model; once without the newest results, if they make a request that cannot be served.

        They may be too long, or hold an image that cannot be read or that the model cannot see.
        """
        try:
            await self._ask(routes)
        except RequestError as error:
            if not self._num_results:
                raise
            kept = self._new[: -self._num_results]
            told = ToolResult.told(f"This result cannot be shown: {error.message}", CallOutcome.TOOL_ERROR)
            self._new = [*kept, *(replace(each, parts=told.parts) for each in self._new[len(kept) :])]
            await self._ask(routes)
        self._num_results = 0

    async def _ask(self, routes: Mapping[str, Route]) -> None:
        tools = tuple(route.tool for name, route in routes.items() if self._options.allows(name))
        choice = self._options.choice(self._turn) if tools else ToolChoice()
        request = GenerationRequest(
            new_id("conv-"),
            self._model,
            (*self._given, *self._new),
            self._params,
            OutputSpec(tools=tools, tool_choice=choice),
        )
        self._answer = Answer()
        async with aclosing(self._answering.stream(request)) as events:
            async for event in events:
                self._answer.take(event)
                self._options.on_event(event)

    async def _run_calls(self, calls: Sequence[ToolCall], routes: Mapping[str, Route]) -> None:
        """Run the calls of one answer side by side, and put their results behind it, in the order of the calls."""
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(self._executed(call, routes)) for call in calls]
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        executed = [task.result() for task in running]
        self._calls += executed
        self._new += (
            Message(Role.TOOL, each.parts, tool_call_id=each.call.id, name=each.call.name) for each in executed
        )
        self._num_results = len(executed)

    async def _executed(self, call: ToolCall, routes: Mapping[str, Route]) -> ExecutedCall:
        async with self._places:
            self._options.on_event(CallStarted(self._turn, call))
            begun = time.monotonic()
            source, result = await self._result_of(call, routes)
            duration_s = time.monotonic() - begun
            executed = ExecutedCall(self._turn, call, source, result.outcome, result.parts, duration_s)
            self._options.on_event(executed)
            return executed

    async def _result_of(self, call: ToolCall, routes: Mapping[str, Route]) -> tuple[str | None, ToolResult]:
        """The source that has run it, if one has, and what the model reads."""
        route = routes.get(call.name)
        offered = ", ".join(filter(self._options.allows, routes)) or "none"
        if not self._options.allows(call.name):
            told = f"The tool {call.name} may not be called here: nothing was run. Allowed tools: {offered}."
            return None, ToolResult.told(told, CallOutcome.BLOCKED)
        if route is None:
            told = f"There is no tool {call.name}: nothing was run. Tools: {offered}."
            return None, ToolResult.told(told, CallOutcome.UNKNOWN_TOOL)
        arguments = arguments_object(call.arguments)
        if arguments is None:
            told = "The arguments are not a JSON object: nothing was run. Call the tool again with one."
            return None, ToolResult.told(told, CallOutcome.BAD_ARGUMENTS)
        return route.source.name, await route.source.call(route.own_name, arguments)
