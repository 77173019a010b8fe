"""Custom tools of OpenAI's dialects, whose calls hold a text: functions with one string for the model. Pure.

The model writes the text as a string in JSON, and the client gets it as text, piece by piece.
"""

from __future__ import annotations

import json
import re
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from periscope.core import (
    AnswerGrammar,
    Finished,
    FinishReason,
    TextDelta,
    Tool,
    ToolCallDelta,
    ToolCallStart,
    new_id,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from periscope.core import JSONObject, OutputEvent

_INPUT: Final = "input"
_OPENING: Final = f'{{"{_INPUT}":"'
_KEY: Final = range(2, 2 + len(_INPUT) + 1)  # indices in it before which no whitespace may stand
#: A complete unit of a string in JSON: plain text, or an escape. A surrogate pair is one unit, so the first half waits
#: until it is known what follows it. An escape that JSON does not have is a unit, too.
_UNIT: Final = re.compile(
    r"""  [^"\\]+
        | \\[^u]
        | \\u[dD][89abAB][0-9a-fA-F]{2}
          (?: \\u[dD][c-fC-F][0-9a-fA-F]{2} | (?= [^\\] | \\[^u] | \\u[^dD] | \\u[dD][^c-fC-F] ))
        | \\u(?![dD][89abAB])[0-9a-fA-F]{4}
        | \\u(?=[0-9a-fA-F]{0,3}[^0-9a-fA-F])
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class CustomTool:
    """A custom tool as the model is offered it.

    Attributes:
        tool: a function with one string. A regular expression is the string's pattern, and holds in every call.
        grammar: the text must fit it, and the string's schema cannot say so: it holds only where the whole answer is
            the text (`as_custom_call`). None = there is none.
    """

    tool: Tool
    grammar: AnswerGrammar | None = None


def custom_tool(name: str, description: str, *, syntax: str = "", definition: str = "", param: str = "") -> CustomTool:
    """The tool with this format.

    Args:
        syntax: `regex` or `lark`; "" = any text.
        definition: the expression or the grammar.
        param: where it stands in the request, for errors.

    Raises:
        InvalidRequest: the grammar is empty or too long.
    """
    if not syntax:
        return CustomTool(_function(name, description, {}))
    told = f"{description}\n\nThe input must fit this {'regular expression' if syntax == 'regex' else 'grammar'}:\n"
    told = f"{told.lstrip()}{definition}"
    if syntax == "regex":
        AnswerGrammar(regex=definition, param=param)  # checks its length
        tool = _function(name, told, {"pattern": f"^(?:{definition})$"})
        return CustomTool(replace(tool, is_strict=True, strict_by="format"))
    return CustomTool(_function(name, told, {}), AnswerGrammar(grammar=definition, param=param))


def _function(name: str, description: str, form: JSONObject) -> Tool:
    schema = {"type": "object", "properties": {_INPUT: {"type": "string", **form}}, "required": [_INPUT]}
    return Tool(name, description, schema | {"additionalProperties": False})


def custom_arguments(text: str) -> str:
    """The arguments of such a function, for a call with this text."""
    return json.dumps({_INPUT: text}, ensure_ascii=False)


class _At(Enum):
    OPENING = auto()
    TEXT = auto()
    END = auto()
    PLAIN = auto()


class CustomInput:
    """Owns how far one call's arguments are read: they come as JSON in pieces, and its text goes on in pieces.

    Joined, the pieces are the same for any cut of the arguments. Arguments of another shape are passed on as they are:
    the client has to check a call anyway.
    """

    def __init__(self) -> None:
        self._at = _At.OPENING
        self._held = ""
        self._num_matched = 0  # characters of the opening

    def feed(self, arguments: str) -> str:
        """The next piece of the text, perhaps empty."""
        if self._at is _At.OPENING:
            arguments = self._open(arguments)
        match self._at:
            case _At.TEXT:
                return self._text(arguments)
            case _At.PLAIN:
                return arguments
        return ""

    def _open(self, arguments: str) -> str:
        """Read the opening; returns what stands behind it, or all that was held if this is not the shape."""
        for at, char in enumerate(arguments):
            self._held += char
            if char == _OPENING[self._num_matched]:
                self._num_matched += 1
                if self._num_matched == len(_OPENING):
                    self._at, self._held = _At.TEXT, ""
                    return arguments[at + 1 :]
            elif not char.isspace() or self._num_matched in _KEY:
                self._at, held = _At.PLAIN, self._held
                return held + arguments[at + 1 :]
        return ""

    def _text(self, arguments: str) -> str:
        self._held += arguments
        pieces, at = [], 0
        while unit := _UNIT.match(self._held, at):
            pieces.append(_unescaped(unit[0]))
            at = unit.end()
        self._held = self._held[at:]
        if self._held.startswith('"'):
            self._at = _At.END
        return "".join(pieces)


def _unescaped(unit: str) -> str:
    if not unit.startswith("\\"):
        return unit
    try:
        told = str(json.loads(f'"{unit}"'))
    except ValueError:
        return unit
    return told.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


async def as_custom_call(events: AsyncGenerator[OutputEvent, None], name: str) -> AsyncGenerator[OutputEvent, None]:
    """The same answer as a call of this tool, whose text it is. Of the answer's own calls there are none."""
    opened: set[int] = set()
    async with aclosing(events):
        async for event in events:
            match event:
                case TextDelta(text, _, choice):
                    if choice not in opened:
                        opened.add(choice)
                        yield ToolCallStart(0, new_id("call_"), name, choice)
                        yield ToolCallDelta(0, f'{{"{_INPUT}": "', choice)
                    if text:
                        yield ToolCallDelta(0, json.dumps(text, ensure_ascii=False)[1:-1], choice)
                case Finished():
                    for choice in sorted(opened):
                        yield ToolCallDelta(0, '"}', choice)
                    yield _as_called(event, opened)
                case _:
                    yield event


def _as_called(finished: Finished, called: set[int]) -> Finished:
    first, *others = (
        FinishReason.TOOL_CALLS if reason is FinishReason.STOP and choice in called else reason
        for choice, reason in enumerate(finished.finish_reasons)
    )
    return replace(finished, finish_reason=first, other_finish_reasons=tuple(others))
