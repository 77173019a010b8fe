"""Events in the tests of parsers: joined neighbours, and ids that are known in advance."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from hypothesis import strategies as st

from periscope.core import ReasoningDelta, TextDelta, ToolCall, ToolCallDelta, ToolCallStart
from periscope.parsing.contracts import Delta, Parser


@dataclass(frozen=True)
class Called:
    """A call with all of its arguments."""

    index: int
    call: ToolCall


Event: TypeAlias = TextDelta | ReasoningDelta | Called


def numbered_ids() -> Callable[[], str]:
    """Draws the ids call_0, call_1 and so on."""
    numbers = itertools.count()
    return lambda: f"call_{next(numbers)}"


def events_from(parser: Parser, pieces: Iterable[str], *, is_cut_off: bool = False) -> list[Event]:
    """All events of one completion, neighbours joined; checks that none is empty and calls are numbered."""
    raw = [event for piece in pieces for event in parser.feed(piece)] + parser.finish(is_cut_off=is_cut_off)
    assert parser.finish(is_cut_off=is_cut_off) == []
    assert all(event.text for event in raw if isinstance(event, TextDelta | ReasoningDelta))
    assert all(event.arguments for event in raw if isinstance(event, ToolCallDelta))
    indices = [event.index for event in raw if isinstance(event, ToolCallStart)]
    assert indices == list(range(parser.num_tool_calls))
    return joined(raw)


def joined(events: Iterable[Delta]) -> list[Event]:
    """The events with neighbouring deltas of one kind joined; the arguments of a call must follow its start."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            result[-1] = TextDelta(last.text + event.text)
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta):
            result[-1] = ReasoningDelta(last.text + event.text)
        elif isinstance(event, ToolCallStart):
            result.append(Called(event.index, ToolCall(event.id, event.name, "")))
        elif isinstance(event, ToolCallDelta):
            assert isinstance(last, Called)
            assert last.index == event.index
            result[-1] = Called(last.index, replace(last.call, arguments=last.call.arguments + event.arguments))
        else:
            result.append(event)
    return result


def called(index: int, name: str, arguments: str) -> Called:
    """A call with the id that `numbered_ids` gives it."""
    return Called(index, ToolCall(f"call_{index}", name, arguments))


@st.composite
def cuts_of(draw: st.DrawFn, text: str) -> list[str]:
    """`text` cut into pieces."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]
