"""How tests of parsers look at events: joined, with ids that can be told in advance."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from hypothesis import strategies as st

from periscope.core import ReasoningDelta, TextDelta, ToolCall, ToolCallDelta
from periscope.parsing.contracts import Delta, Parser


def numbered_ids() -> Callable[[], str]:
    """call_0, call_1, ..."""
    numbers = itertools.count()
    return lambda: f"call_{next(numbers)}"


def events_from(parser: Parser, pieces: Iterable[str]) -> list[Delta]:
    """All events of one completion, neighbours joined; checks that none is empty and calls are numbered."""
    raw = [event for piece in pieces for event in parser.feed(piece)] + parser.finish()
    assert parser.finish() == []
    assert all(isinstance(event, ToolCallDelta) or event.text for event in raw)
    indices = [event.index for event in raw if isinstance(event, ToolCallDelta)]
    assert indices == list(range(parser.num_tool_calls))
    return joined(raw)


def joined(events: Iterable[Delta]) -> list[Delta]:
    """The events with neighbouring deltas of one kind made one."""
    result: list[Delta] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            result[-1] = TextDelta(last.text + event.text)
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta):
            result[-1] = ReasoningDelta(last.text + event.text)
        else:
            result.append(event)
    return result


def called(index: int, name: str, arguments: str) -> ToolCallDelta:
    """The event of a call, with the id that `numbered_ids` gives it."""
    return ToolCallDelta(index, ToolCall(f"call_{index}", name, arguments))


@st.composite
def cuts_of(draw: st.DrawFn, text: str) -> list[str]:
    """`text` in pieces; joined they are `text` again."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[start:end] for start, end in itertools.pairwise([0, *cuts, len(text)])]
