"""How a model's thinking is marked, and what is written in its place to end it: the chat template's own habit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from periscope.core import JSONObject, OutputFormat, ToolCallStyle
from periscope.engine.text.template_fit import Render

#: Words that no template contains.
_THOUGHT, _ANSWER = "Zwoelfthought", "Zwoelfanswer"
_PROBE_QUESTION: Final[JSONObject] = {"role": "user", "content": "Hello"}
#: What follows the end of gpt-oss's analysis: the head of the next message, then, unless it may be a call, its channel.
_NEXT_MESSAGE, _FINAL = "<|start|>assistant", "<|channel|>final<|message|>"
#: The most text that a template puts on either side of the marker; more is part of a message.
_MAX_GAP_CHARS: Final = 8


@dataclass(frozen=True, slots=True)
class ThinkingFormat:
    """How one model marks its thinking, and the tokens that end it from outside. Immutable; crosses threads.

    Attributes:
        start, end: the markers around thinking.
        call_start, call_end: those around calls, inside which nothing is a marker; empty if the model has none.
        endings: token ids that end thinking. The n-th time in one completion the n-th of them, then the last one.
        endings_before_calls: the same where the answer may be a call.
    """

    start: str
    end: str
    call_start: str
    call_end: str
    endings: tuple[tuple[int, ...], ...]
    endings_before_calls: tuple[tuple[int, ...], ...]

    @property
    def longest(self) -> int:
        """Characters of the longest marker."""
        return max(map(len, (self.start, self.end, self.call_start, self.call_end)))


def thinking_format(
    output_format: OutputFormat,
    encode: Callable[[str], Sequence[int]],
    render: Render | None,
    *,
    reasoning_keys: Sequence[str],
    message: str,
) -> ThinkingFormat | None:
    """The format of a model; None if its output has no marker that ends thinking.

    Args:
        encode: token ids of a text, with special tokens recognised and none added.
        render: renders messages with the model's template, without a new turn; None = there is no template.
        reasoning_keys: the keys under which the template looks for a message's reasoning.
        message: a sentence that is written before the end marker; empty = none.
    """
    start, end = output_format.think_start, output_format.think_end
    if not start or not end:
        return None
    said = f"\n\n{message}" if message else ""
    if output_format.tool_call_style is ToolCallStyle.HARMONY:
        whole = tuple(encode(said + end + _NEXT_MESSAGE + _FINAL))
        with_calls = (tuple(encode(said + end + _NEXT_MESSAGE)), whole)
        return ThinkingFormat(start, end, "", "", (whole,), with_calls)
    before, after = _gaps(end, render, reasoning_keys)
    ending = (tuple(encode(said + before + end + after)),)
    calls = output_format.tool_start or "", output_format.tool_end or ""
    return ThinkingFormat(start, end, *calls, ending, ending)


def _gaps(end: str, render: Render | None, reasoning_keys: Sequence[str]) -> tuple[str, str]:
    """The whitespace that the template writes before and after the end marker.

    Read from how it renders a message with reasoning and an answer. If it leaves reasoning out, the habit of Qwen3,
    whose markers most models share.
    """
    told = {"role": "assistant", "content": _ANSWER} | dict.fromkeys(reasoning_keys, _THOUGHT)
    _, _, rest = _rendered(render, [_PROBE_QUESTION, told]).partition(_THOUGHT)
    between, has_answer, _ = rest.partition(_ANSWER)
    before, has_end, after = between.partition(end)
    if has_answer and has_end and _is_gap(before) and _is_gap(after):
        return before, after
    return ("\n", "\n\n") if end.startswith("</") else ("", "")


def _is_gap(text: str) -> bool:
    return len(text) <= _MAX_GAP_CHARS and not text.strip()


def _rendered(render: Render | None, messages: list[JSONObject]) -> str:
    """The rendered messages; empty if the template refuses them."""
    if render is None:
        return ""
    try:
        return render(messages, [])
    except Exception:  # noqa: BLE001 - see `Render`
        return ""
