"""Rounds: the model calls tools of the server, reads the results and goes on, all within one request. Event loop only.

It knows neither the pool nor HTTP: its owner has the model answer each round, and holds no lease while calls are run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from periscope.core import (
    AnswerEvent,
    AnswerGrammar,
    ApprovalWanted,
    CallOutcome,
    Finished,
    FinishReason,
    GenerationRequest,
    Message,
    OutputEvent,
    ReasoningDelta,
    Role,
    ServerCallDelta,
    ServerCallResult,
    ServerCallRun,
    ServerCallStart,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolChoiceMode,
    ToolResult,
    Usage,
    Waiting,
    WaitStatus,
)
from periscope.serving.server_tools import ServerTools

if TYPE_CHECKING:
    from periscope.serving.generators import GeneratorFacts
    from periscope.serving.server_tools import ServerTool

#: Between the words of two rounds, which the client reads as one answer.
_GAP: Final = "\n\n"
_NO_MORE_CALLS: Final = "This tool cannot be called again in this answer. Answer now, with what you know."
_NO_SUCH_TOOL: Final = "There is no such tool. Answer now, with what you know."
_TOO_LONG: Final = "The result is too long for this conversation. Answer now, with what you know."
#: Shown calls that are run side by side; further ones wait for them.
MAX_CALLS_AT_ONCE: Final = 16

WordsT = TypeVar("WordsT", TextDelta, ReasoningDelta)
#: Hears what a round's calls wait for and give. Called on the event loop; never waits, never raises.
TellEvent: TypeAlias = Callable[[AnswerEvent], None]


def may_offer_tools(request: GenerationRequest) -> bool:
    """Pure: whether the server may offer tools of its own, unasked, beside the client's.

    Not where the client forbids calls or demands one, which is to be of its own tools; not where the answer must fit a
    grammar of the client's, beside which not every model can call; not where the client has begun the answer; and not
    where it wants several choices, each of which would go on with a conversation of its own.
    """
    output = request.output
    is_free = output.tool_choice.mode is ToolChoiceMode.AUTO and not isinstance(output.response_format, AnswerGrammar)
    return is_free and request.num_choices == 1 and not request.continues


@dataclass(slots=True)
class _Call:
    """A call that is not for the client to run, as far as the model has written it.

    Attributes:
        tool: None = there is no such tool, or it cannot be called any more.
        is_shown: the client hears of it.
    """

    id: str
    name: str
    tool: ServerTool | None
    is_shown: bool = False
    approval_id: str | None = None
    arguments: list[str] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        """Whether it is only run when the client agrees, whom nobody has asked yet."""
        return self.tool is not None and self.tool.needs_approval and self.approval_id is None

    @property
    def written(self) -> ToolCall:
        return ToolCall(self.id, self.name, "".join(self.arguments) or "{}")


@dataclass(slots=True)
class _Round:
    """What the model has written in one round.

    Attributes:
        calls: that are not for the client.
        num_client_calls: those that are.
        open_call: the call that is being written, if it is one of `calls`.
        is_ours: what is being written is not for the client.
    """

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)
    num_client_calls: int = 0
    open_call: _Call | None = None
    is_ours: bool = False


class Rounds:
    """Owns the conversation of one request from the first round to the last, and what all rounds have cost.

    `generating -> calling -> generating ... -> ended`: `take` gets the events of a round. After its last event either
    `has_calls` is true, and `run_calls` begins the next round, or `finished` is set. It is set after a round in which
    the model

    1. called none of the server's tools,
    2. called one of the client's, too, or one whose call the client has to agree to: only the client can go on. Calls
       that the client hears of are run first. The others are dropped, because their results would have no place in the
       conversation that the client sends next,
    3. was cut off, or had used up `max_tokens`,
    4. called a tool although it had been told that it cannot any more.

    A call of a tool that nobody has offered is the client's if it has tools; else the model is told, and has one round
    more. A client without tools never gets a call. Once a call was run, the model is free to answer, whatever the
    request's `tool_choice`.

    Args:
        servers: the tools that the client has asked for. If calls are approved, it begins with `calling`.

    Attributes:
        has_calls: calls are to be run now.
        finished: the end of the request, with the usage of all rounds; None before it.
    """

    def __init__(self, request: GenerationRequest, servers: ServerTools = ServerTools()) -> None:
        self.has_calls = bool(servers.approved)
        self.finished: Finished | None = None
        self._request = request
        self._tools = {each.tool.name: each for each in servers.tools}
        self._num_calls: Counter[str] = Counter()
        self._num_shown_left = max(0, servers.max_calls - len(servers.approved))
        self._max_tokens = request.params.max_tokens
        self._usage = Usage()
        self._num_thought = 0  # tokens of reasoning in the newest round
        self._round = _Round()
        for each in servers.approved:
            call, tool = each.call, self._tools.get(each.call.name)
            approved = _Call(call.id, call.name, tool, True, each.approval_id, [call.arguments])
            self._round.calls.append(approved)
        self._num_seen = 0  # messages whose pictures have been replaced
        self._num_results = 0  # messages at the end of the conversation, which the model has not read yet
        self._end: Finished | None = None  # the request's end, once the calls of its last round are run
        self._is_last = self._has_text = self._has_reasoning = False

    @property
    def ends_with_calls(self) -> bool:
        """The calls that are to be run are the last thing, and the model is not asked again."""
        return self._end is not None

    @property
    def unseen(self) -> tuple[Message, ...]:
        """The messages whose pictures and files have not been replaced yet; empty if they have none."""
        new = self._request.messages[self._num_seen :]
        return new if any(message.images or message.files for message in new) else ()

    def see(self, messages: Iterable[Message]) -> None:
        """Put these in the place of those that were `unseen`."""
        kept = self._request.messages[: self._num_seen]
        self._request = replace(self._request, messages=(*kept, *messages))
        self._num_seen = len(self._request.messages)

    def offer(self, tools: Iterable[ServerTool]) -> None:
        """Offer the model tools beside those of the client, from now on."""
        self._tools |= {each.tool.name: each for each in tools}

    @property
    def asked_tools(self) -> frozenset[str]:
        """The names of the tools that the client has asked for, on MCP servers or its own."""
        shown = (name for name, each in self._tools.items() if each.is_shown)
        return frozenset((*shown, *(tool.name for tool in self._request.output.tools)))

    def request_for(self, facts: GeneratorFacts) -> GenerationRequest:
        """What the model is asked in this round.

        Without the server's tools if it cannot call any, and in the last round of an answer that has to be JSON: there
        the grammar would take a call for it. Else the tools stay, so that the prefix of the prompt stays cached.
        """
        output = self._request.output
        choice = output.tool_choice
        can_call = facts.has_tools or choice.mode is ToolChoiceMode.REQUIRED
        must_answer = self._is_last and output.response_format is not None
        if not self._tools or not can_call or must_answer:
            return self._request
        tools = (*output.tools, *(each.tool for each in self._tools.values()))
        if choice.allowed is not None:
            hidden = {name for name, each in self._tools.items() if not each.is_shown}
            choice = replace(choice, allowed=choice.allowed | hidden)
        return replace(self._request, output=replace(output, tools=tools, tool_choice=choice))

    def take(self, event: OutputEvent) -> AnswerEvent | None:
        """What the client gets of an event of this round, if anything."""
        current = self._round
        match event:
            case Finished():
                self._end_round(event)
                return None
            case _ if not self._tools:
                return event
            case TextDelta():
                event = _noted(event, current.text, is_apart=self._has_text)
            case ReasoningDelta():
                event = _noted(event, current.reasoning, is_apart=self._has_reasoning)
            case ToolCallStart():
                return self._begin_call(event)
            case ToolCallDelta():
                return self._take_arguments(event)
        return event

    async def run_calls(self, tell: TellEvent) -> None:
        """Run the calls of this round, and begin the next round or end the request.

        Raises:
            PeriscopeError: a tool ended the request.
        """
        current, self._round, self.has_calls = self._round, _Round(), False
        is_shown = any(call.is_shown for call in current.calls)
        self._has_text = not is_shown and (self._has_text or bool(current.text))
        self._has_reasoning = not is_shown and (self._has_reasoning or bool(current.reasoning))
        results = await self._results(current.calls, tell)
        if self._end is not None:
            self.finished = self._end
            return
        calls = [call.written for call in current.calls]
        said = (TextPart("".join(current.text)),) if current.text else ()
        messages = [Message(Role.ASSISTANT, said, tuple(calls), reasoning="".join(current.reasoning) or None)]
        messages += (
            Message(Role.TOOL, result.parts, tool_call_id=call.id, name=call.name)
            for call, result in zip(calls, results, strict=True)
        )
        asked = self._request
        budget = asked.params.thinking_budget
        left = None if budget is None else max(0, budget - self._num_thought)
        params = replace(asked.params, max_tokens=self._num_tokens_left(), thinking_budget=left)
        free = replace(asked.output.tool_choice, mode=ToolChoiceMode.AUTO, name=None)
        output = replace(asked.output, tool_choice=free)
        self._request = replace(asked, messages=(*asked.messages, *messages), params=params, output=output)
        self._num_results = len(calls)

    def drop_results(self) -> bool:
        """The conversation with the new results does not fit the model: it is told that in their place, once.

        Returns:
            False if there are none to drop; then the conversation as such does not fit.
        """
        num_results, self._num_results, self._is_last = self._num_results, 0, True
        kept = self._request.messages[: len(self._request.messages) - num_results]
        results = self._request.messages[len(kept) :]
        told = (replace(result, parts=(TextPart(_TOO_LONG),)) for result in results)
        self._request = replace(self._request, messages=(*kept, *told))
        return num_results > 0

    def drop_images(self, reason: str) -> None:
        """The pictures and files that are `unseen` cannot be shown: the model is told why in their places."""
        told = TextPart(f"(This part of the result cannot be shown: {reason})", is_data=True)
        self.see(
            replace(each, parts=tuple(part if isinstance(part, TextPart) else told for part in each.parts))
            for each in self.unseen
        )

    async def _results(self, calls: list[_Call], tell: TellEvent) -> list[ToolResult]:
        """One for each call, in order; of one that waits for the client a word that nobody reads."""
        for call in calls:
            if call.waits and call.is_shown:
                tell(ApprovalWanted(call.written))
            elif call.is_shown:
                if call.approval_id is not None:
                    tell(ServerCallStart(call.id, call.name, call.approval_id))
                    tell(ServerCallDelta(call.id, call.written.arguments))
                tell(ServerCallRun(call.id))
        shown = [call for call in calls if call.is_shown and not call.waits]
        results: dict[str, ToolResult] = {}
        if shown:
            await _side_by_side(shown, results, tell)
        for call in calls:
            if not call.is_shown:
                results[call.id] = await self._result_of(call, tell)
        return [results.get(call.id) or ToolResult(()) for call in calls]

    async def _result_of(self, call: _Call, tell: TellEvent) -> ToolResult:
        """Run a call that the client does not hear of, and return its result."""
        tool = call.tool
        if tool is None or tool.is_shown or self._num_calls[call.name] >= tool.max_calls:
            self._is_last = True
            is_known = call.name in self._tools
            outcome = CallOutcome.BLOCKED if is_known else CallOutcome.UNKNOWN_TOOL
            return ToolResult.told(_NO_MORE_CALLS if is_known else _NO_SUCH_TOOL, outcome)
        self._num_calls[call.name] += 1
        return await tool.call(call.written.arguments, tell)

    def _begin_call(self, event: ToolCallStart) -> AnswerEvent | None:
        """Keep what belongs to a call that is not for the client, whose calls are numbered without those."""
        current, tool = self._round, self._tools.get(event.name)
        is_ours = tool is not None or not self._request.output.tools
        is_second = bool(current.calls) or (is_ours and current.num_client_calls > 0)
        current.open_call, current.is_ours = None, True
        if is_second and not self._request.output.tool_choice.is_parallel:
            return None
        if not is_ours:
            current.is_ours = False
            current.num_client_calls += 1
            return replace(event, index=current.num_client_calls - 1)
        call = current.open_call = _Call(event.id, event.name, tool)
        current.calls.append(call)
        if tool is None or not tool.is_shown or self._is_last or not self._num_shown_left:
            return None
        call.is_shown = True
        if call.waits:
            return None
        self._num_shown_left -= 1
        return ServerCallStart(call.id, call.name)

    def _take_arguments(self, event: ToolCallDelta) -> AnswerEvent | None:
        current = self._round
        if not current.is_ours:
            return replace(event, index=current.num_client_calls - 1)
        call = current.open_call
        if call is None:
            return None
        call.arguments.append(event.arguments)
        return ServerCallDelta(call.id, event.arguments) if call.is_shown and not call.waits else None

    def _end_round(self, finished: Finished) -> None:
        self._usage = self._usage.plus(finished.usage)
        self._num_thought = finished.usage.num_reasoning_tokens
        current, reason, num_left = self._round, finished.finish_reason, self._num_tokens_left()
        shown = [call for call in current.calls if call.is_shown]
        needs_client = current.num_client_calls > 0 or any(call.waits for call in shown)
        if current.calls and reason is FinishReason.TOOL_CALLS:
            if needs_client:
                current.calls, self.has_calls = shown, bool(shown)
                reason = FinishReason.TOOL_CALLS if current.num_client_calls else FinishReason.STOP
            else:
                self.has_calls = num_left != 0 and not self._is_last
                if self.has_calls:
                    return
                reason = FinishReason.LENGTH if num_left == 0 else FinishReason.STOP
        end = replace(finished, finish_reason=reason, usage=self._usage)
        self._end, self.finished = (end, None) if self.has_calls else (None, end)

    def _num_tokens_left(self) -> int | None:
        """What is left of `max_tokens`, which bounds all rounds together; None = without bound."""
        return None if self._max_tokens is None else max(0, self._max_tokens - self._usage.num_completion_tokens)


async def _side_by_side(calls: list[_Call], results: dict[str, ToolResult], tell: TellEvent) -> None:
    """Run calls that the client hears of, and tell each result as it comes.

    Raises:
        PeriscopeError: a tool ended the request.
    """
    places = asyncio.Semaphore(MAX_CALLS_AT_ONCE)

    async def run(call: _Call) -> None:
        if call.tool is None:
            result = ToolResult.told(f"There is no tool {call.name}: nothing was run.", CallOutcome.UNKNOWN_TOOL)
        else:
            async with places:
                result = await call.tool.call(call.written.arguments, tell)
        results[call.id] = result
        tell(ServerCallResult(call.id, result))
        if len(results) < len(calls):
            tell(waiting())

    def waiting() -> Waiting:
        return Waiting(WaitStatus.CALLING, num_done=len(results), num_total=len(calls))

    tell(waiting())
    try:
        async with asyncio.TaskGroup() as tasks:
            for call in calls:
                tasks.create_task(run(call), name=f"call {call.name}")
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


def _noted(event: WordsT, words: list[str], *, is_apart: bool) -> WordsT:
    """Add the text of a delta to `words`; the first one is set apart from those of earlier rounds."""
    if not event.text:
        return event
    words.append(event.text)
    return replace(event, text=_GAP + event.text) if is_apart and len(words) == 1 else event
