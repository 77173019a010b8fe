"""A grammar's text, in llguidance's dialect of Lark. Pure; knows neither tokenizers nor llguidance's objects.

Everything a model may do before its answer is part of the grammar: whether to reason, where reasoning ends, and that
the completion does not. So a token that holds the end of a marker and the beginning of the answer is no special case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from periscope.core import JSONObject, OutputFormat, ToolCallStyle

#: A marker taken apart: ids of tokens that are markers of their own, and the text between.
Marker: TypeAlias = Sequence[int | str]

#: JSON on one line, spaced as Python writes it: what models have read most, and no room to ramble in blanks.
_COMPILER_SETTINGS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
#: Calls in one answer: a model that never stops calling is stopped.
MAX_PARALLEL_CALLS = 16
_NEWLINE = r'"\n"'


class GrammarText:
    """Owns the rules of one grammar while they are written.

    Args:
        take_apart: finds the markers' tokens in a text.
    """

    def __init__(self, take_apart: Callable[[str], Marker]) -> None:
        self._take_apart = take_apart
        self._rules: list[str] = []
        self._num_schemas = 0

    def json(self, schema: JSONObject) -> str:
        """A new rule: JSON of this schema. Returns its name."""
        name = f"json_{self._num_schemas}"
        self._num_schemas += 1
        self._rules.append(f"{name}: %json {json.dumps({**schema, 'x-guidance': _COMPILER_SETTINGS})}")
        return name

    def calls(self, tools: Sequence[tuple[str, JSONObject]], *, is_parallel: bool, native: OutputFormat | None) -> str:
        """One or more calls of these (name, schema of the arguments).

        Args:
            native: between whose markers each call stands; None = all of them in one JSON array.
        """
        options = []
        for name, schema in tools:
            opening = _literal(f'{{"name": {json.dumps(name)}, "arguments": ')
            options.append(f"{opening} {self.json(schema)} {_literal('}')}")
        before, between, after, call = '"["', ", ", '"]"', f"({' | '.join(options)})"
        if native is not None:
            start, end = self._marker(native.tool_start or ""), self._marker(native.tool_end or "")
            call = f"{start} {_NEWLINE} {call} {_NEWLINE} {end}"
            before, between, after = "", "\n", ""
        self._rules.append(f"call: {call}")
        more = f"({_literal(between)} call){{0,{MAX_PARALLEL_CALLS - 1}}}" if is_parallel else ""
        return f"{before} call {more} {after}"

    def alone(self, answer: str) -> str:
        """The grammar of the answer alone."""
        return "\n".join([f"start: {answer}", *self._rules])

    def after_reasoning(self, answer: str, output_format: OutputFormat, *, starts_in_reasoning: bool) -> str:
        """The grammar of a completion whose reasoning comes first.

        Reasoning that the prompt has opened must be closed. Otherwise it is the model's choice to open it.
        """
        if output_format.tool_call_style is ToolCallStyle.HARMONY:
            final = "<|channel|>final<|message|>"
            opening, end = "<|channel|>analysis<|message|>", "<|end|>"
            after, direct = self._marker(f"<|start|>assistant{final}"), self._marker(final)
        else:
            opening, end = output_format.think_start or "", output_format.think_end or ""
            after = direct = "LINE_ENDS?"
            self._rules.append(r"LINE_ENDS: /\n{1,2}/")  # what chat models put between reasoning and answer
        self._rules += self._thought(end)
        if starts_in_reasoning:
            return self.alone(f"thought {after} {answer}")
        self._rules.append(f'opening[capture="opened"]: {self._marker(opening)}')
        return self.alone(f"(opening thought {after} | {direct}) {answer}")

    def _thought(self, end: str) -> list[str]:
        """Free text up to the first `end`, be it one token or spelled."""
        pattern = re.escape(end).replace("/", r"\/")
        rules = [f"spelled[lazy]: /(?s:.*){pattern}/"]
        if all(isinstance(part, str) for part in self._take_apart(end)):
            return ['thought[capture="closed"]: spelled', *rules]
        rules.append(f"FREE: /(?s:.*)/ & ~/(?s:.*){pattern}(?s:.*)/")
        return [f'thought[capture="closed"]: FREE {self._marker(end)} | spelled', *rules]

    def _marker(self, text: str) -> str:
        parts = self._take_apart(text)
        return " ".join(_literal(part) if isinstance(part, str) else f"<[{part}]>" for part in parts)


def has_reasoning(output_format: OutputFormat) -> bool:
    """Whether completions of this format may begin with reasoning that can be told from the answer."""
    return output_format.tool_call_style is ToolCallStyle.HARMONY or bool(
        output_format.think_start and output_format.think_end
    )


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
