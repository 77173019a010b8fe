"""Rounds: the model calls tools of the server, reads the results and goes on, all within one request. Event loop only.

It knows neither the pool nor HTTP: its owner has the model answer each round, and holds no lease while calls are run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

from periscope.core import (
    AnswerGrammar,
    Finished,
    FinishReason,
    GenerationRequest,
    Message,
    OutputEvent,
    ReasoningDelta,
    Role,
    Tell,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolChoiceMode,
    Usage,
)

if TYPE_CHECKING:
    from periscope.serving.generators import GeneratorFacts
    from periscope.serving.server_tools import ServerTool

#: Between the words of two rounds, which the client reads as one answer.
_GAP: Final = "\n\n"
_NO_MORE_CALLS: Final = "This tool cannot be called again in this answer. Answer now, with what you know."
_NO_SUCH_TOOL: Final = "There is no such tool. Answer now, with what you know."
_TOO_LONG: Final = "The result is too long for this conversation. Answer now, with what you know."

WordsT = TypeVar("WordsT", TextDelta, ReasoningDelta)


def may_offer_tools(request: GenerationRequest) -> bool:
    """Pure: whether the server may offer tools of its own beside the client's.

    Not where the client forbids calls or demands one, which is to be of its own tools; not where the answer must fit a
    grammar of the client's, beside which not every model can call; not where the client has begun the answer; and not
    where it wants several choices, each of which would go on with a conversation of its own.
    """
    output = request.output
    is_free = output.tool_choice.mode is ToolChoiceMode.AUTO and not isinstance(output.response_format, AnswerGrammar)
    return is_free and request.num_choices == 1 and not request.continues


@dataclass(slots=True)
class _Call:
    """A call of one of the server's tools, as far as the model has written it."""

    id: str
    name: str
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Round:
    """What the model has written in one round.

    Attributes:
        calls: that are not for the client.
        num_client_calls: those that are.
        is_ours: the call that began last is one of `calls`.
    """

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)
    num_client_calls: int = 0
    is_ours: bool = False


class Rounds:
    """Owns the conversation of one request from the first round to the last, and what all rounds have cost.

    `generating -> calling -> generating ... -> ended`: `take` gets the events of a round. After its last event either
    `has_calls` is true, and `run_calls` begins the next round, or `finished` is set. It is set after a round in which
    the model

    1. called none of the server's tools,
    2. called one of the client's, too: only the client can go on. The calls of the server's tools are dropped, because
       their results would have no place in the conversation that the client sends next,
    3. was cut off, or had used up `max_tokens`,
    4. called a tool although it had been told that it cannot any more.

    A call of a tool that nobody has offered is the client's if it has tools; else the model is told, and has one round
    more. A client without tools never gets a call.

    Args:
        tools: offered behind the client's.

    Attributes:
        has_calls: calls are to be run now.
        finished: the end of the request, with the usage of all rounds; None before it.
    """

    def __init__(self, request: GenerationRequest, tools: Sequence[ServerTool] = ()) -> None:
        self.has_calls = False
        self.finished: Finished | None = None
        self._request = request
        self._tools = {each.tool.name: each for each in tools}
        self._num_calls: Counter[str] = Counter()
        self._max_tokens = request.params.max_tokens
        self._usage = Usage()
        self._num_thought = 0  # tokens of reasoning in the newest round
        self._round = _Round()
        self._num_results = 0  # messages at the end of the conversation, which the model has not read yet
        self._is_last = self._has_text = self._has_reasoning = False

    def request_for(self, facts: GeneratorFacts) -> GenerationRequest:
        """What the model is asked in this round.

        Without the server's tools if it cannot call any, and in the last round of an answer that has to be JSON: there
        the grammar would take a call for it. Else the tools stay, so that the beginning of the prompt stays cached.
        """
        output = self._request.output
        must_answer = self._is_last and output.response_format is not None
        if not self._tools or not facts.has_tools or must_answer:
            return self._request
        tools = (*output.tools, *(each.tool for each in self._tools.values()))
        choice = output.tool_choice
        if choice.allowed is not None:
            choice = replace(choice, allowed=choice.allowed | self._tools.keys())
        return replace(self._request, output=replace(output, tools=tools, tool_choice=choice))

    def take(self, event: OutputEvent) -> OutputEvent | None:
        """What the client gets of an event of this round, if anything."""
        current = self._round
        match event:
            case Finished():
                self._end_round(event)
                return None
            case _ if not self._tools:
                return event
            case TextDelta():
                return _noted(event, current.text, is_apart=self._has_text)
            case ReasoningDelta():
                return _noted(event, current.reasoning, is_apart=self._has_reasoning)
            case ToolCallStart() | ToolCallDelta():
                return self._take_call(event)
        return event

    async def run_calls(self, tell: Tell) -> None:
        """Run the calls of this round one after the other, and begin the next round.

        Raises:
            PeriscopeError: a tool ended the request.
        """
        current, self._round, self.has_calls = self._round, _Round(), False
        self._has_text |= bool(current.text)
        self._has_reasoning |= bool(current.reasoning)
        calls = tuple(ToolCall(call.id, call.name, "".join(call.arguments) or "{}") for call in current.calls)
        said = (TextPart("".join(current.text)),) if current.text else ()
        messages = [Message(Role.ASSISTANT, said, calls, reasoning="".join(current.reasoning) or None)]
        for call in calls:
            result = TextPart(await self._result_of(call, tell), is_data=True)
            messages.append(Message(Role.TOOL, (result,), tool_call_id=call.id, name=call.name))
        asked = self._request
        budget = asked.params.thinking_budget
        left = None if budget is None else max(0, budget - self._num_thought)
        params = replace(asked.params, max_tokens=self._num_tokens_left(), thinking_budget=left)
        self._request = replace(asked, messages=(*asked.messages, *messages), params=params)
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

    async def _result_of(self, call: ToolCall, tell: Tell) -> str:
        tool = self._tools.get(call.name)
        if tool is None or self._num_calls[call.name] >= tool.max_calls:
            self._is_last = True
            return _NO_SUCH_TOOL if tool is None else _NO_MORE_CALLS
        self._num_calls[call.name] += 1
        return await tool.call(call.arguments, tell)

    def _take_call(self, event: ToolCallStart | ToolCallDelta) -> OutputEvent | None:
        """Keep what belongs to a call that is not for the client, whose calls are numbered without those."""
        current = self._round
        if isinstance(event, ToolCallStart):
            current.is_ours = event.name in self._tools or not self._request.output.tools
            if current.is_ours:
                current.calls.append(_Call(event.id, event.name))
            else:
                current.num_client_calls += 1
        elif current.is_ours:
            current.calls[-1].arguments.append(event.arguments)
        return None if current.is_ours else replace(event, index=current.num_client_calls - 1)

    def _end_round(self, finished: Finished) -> None:
        self._usage = self._usage.plus(finished.usage)
        self._num_thought = finished.usage.num_reasoning_tokens
        current, reason, num_left = self._round, finished.finish_reason, self._num_tokens_left()
        if current.calls and not current.num_client_calls and reason is FinishReason.TOOL_CALLS:
            self.has_calls = num_left != 0 and not self._is_last
            if self.has_calls:
                return
            reason = FinishReason.LENGTH if num_left == 0 else FinishReason.STOP
        self.finished = replace(finished, finish_reason=reason, usage=self._usage)

    def _num_tokens_left(self) -> int | None:
        """Of `max_tokens`, which bounds all rounds together; None = without bound."""
        return None if self._max_tokens is None else max(0, self._max_tokens - self._usage.num_completion_tokens)


def _noted(event: WordsT, words: list[str], *, is_apart: bool) -> WordsT:
    """Add the text of a delta to `words`; the first one is set apart from those of earlier rounds."""
    if not event.text:
        return event
    words.append(event.text)
    return replace(event, text=_GAP + event.text) if is_apart and len(words) == 1 else event
