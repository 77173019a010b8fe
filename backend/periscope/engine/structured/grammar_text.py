"""Writes grammars in llguidance's dialect of Lark. Pure; knows neither tokenizers nor llguidance's objects.

The grammar covers all that a model may write before its answer: whether it reasons, and how reasoning ends. So a token
that contains the end of a marker and the start of the answer needs no special case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from periscope.core import JSONObject, OutputFormat, ToolCallStyle

#: A marker as a sequence of special token ids and the text between them.
Marker: TypeAlias = Sequence[int | str]
#: Pairs of a tool's name and the schema of its arguments.
CallableTools: TypeAlias = Sequence[tuple[str, JSONObject]]

#: JSON on one line with Python's spacing, which models have seen most; flexible whitespace would allow endless blanks.
_COMPILER_SETTINGS = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
#: The most calls in one answer, for models that never stop calling.
MAX_PARALLEL_CALLS = 16

_FINAL = "<|channel|>final<|message|>"
_END, _NEXT_MESSAGE = "<|end|>", "<|start|>assistant"
#: Messages of gpt-oss that are neither answer nor call.
_ASIDES = ("<|channel|>analysis<|message|>", "<|channel|>commentary<|message|>")
#: The markers, other than the end of a message, that `HarmonyParser` does not read as text.
_HARMONY_MARKERS = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|return|>", "<|call|>")
_PYTHON_TAG = "<|python_tag|>"
_LLAMA_MARKERS = (_PYTHON_TAG, "<|eom_id|>", "<|eot_id|>")
#: The start of a text that Llama's parser takes for a call. Python's `\s` matches four characters more than Rust's.
_LLAMA_OPENING = r'[\s\x1c-\x1f;]*\{"name": "'
_JSON_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[{}]|: |, ')
#: The names that Mistral's parser accepts.
_MISTRAL_NAME = re.compile(r"[\w-]+")


@dataclass(frozen=True, slots=True)
class _CallSyntax:
    """The text around names and arguments of calls. Special tokens in it are written as tokens.

    Attributes:
        marker: announces that calls follow.
        before, between, after: the text before the first call, between two calls, and after the last one.
        quotes_name: whether the name is in a JSON string.
        max_calls: the most calls in one answer.
    """

    marker: str = ""
    before: str = ""
    before_name: str = '{"name": "'
    before_arguments: str = '", "arguments": '
    after_arguments: str = "}"
    between: str = ", "
    after: str = ""
    quotes_name: bool = True
    max_calls: int = MAX_PARALLEL_CALLS


class GrammarText:
    """Owns the rules of one grammar while they are written.

    Args:
        take_apart: splits a marker into special tokens and text.
        output_format: how constrained calls are written (`OutputFormat.constrained`).
    """

    def __init__(self, take_apart: Callable[[str], Marker], output_format: OutputFormat) -> None:
        self._take_apart = take_apart
        self._format = output_format
        self._style = output_format.tool_call_style
        self._rules: list[str] = []
        self._num_schemas = 0

    def schema(self, schema: JSONObject) -> str:
        """Add a rule for JSON of this schema; returns the rule's name."""
        name = f"json_{self._num_schemas}"
        self._num_schemas += 1
        self._rules.append(f"{name}: %json {json.dumps({**schema, 'x-guidance': _COMPILER_SETTINGS})}")
        return name

    def lark(self, grammar: str) -> str:
        """Add a rule for a whole grammar, whose names are its own; returns the rule's name."""
        self._rules.append(f"answer: %lark {{\n{grammar}\n}}")
        return "answer"

    def answer(self, rule: str) -> str:
        """The rule body of an answer that is this rule."""
        final = _FINAL if self._style is ToolCallStyle.HARMONY else ""
        return f"{self._marker(final)} {rule}"

    def json(self, schema: JSONObject) -> str:
        """The rule body of an answer in JSON."""
        return self.answer(self.schema(schema))

    def json_or_calls(self, schema: JSONObject, tools: CallableTools, *, is_parallel: bool) -> str:
        """The rule body of an answer in JSON, or of one or more calls."""
        is_bare = self._style is ToolCallStyle.LLAMA
        return f"{self.json(schema)} | {self.calls(tools, is_parallel=is_parallel, in_json_pieces=is_bare)}"

    def calls(self, tools: CallableTools, *, is_parallel: bool, in_json_pieces: bool = False) -> str:
        """The rule body of an answer of one or more calls.

        Args:
            in_json_pieces: the answer may be JSON instead. The lexer takes the longest lexeme and does not backtrack,
                so the lexemes of a call must be those of JSON.
        """
        syntax = self._with_call(tools, in_json_pieces=in_json_pieces)
        return f"{self._marker(syntax.marker)} {self._calls(syntax, is_parallel=is_parallel)}"

    def text_and_calls(self, tools: CallableTools, *, is_parallel: bool) -> str:
        """The rule body of any answer whose calls, if there are any, are of these tools."""
        syntax = self._with_call(tools)
        calls = self._calls(syntax, is_parallel=is_parallel)
        thoughts = [self._format.think_start] if self._format.think_start else []
        if self._style is ToolCallStyle.HARMONY:
            opening, aside = " | ".join(map(self._marker, _ASIDES)), self._text_up_to(_END, _HARMONY_MARKERS)
            final = f"{self._marker(_FINAL)} {self._text([*_HARMONY_MARKERS, _END])}"
            return f"(({opening}) {aside} {self._marker(_NEXT_MESSAGE)})* ({calls} | {final})"
        if self._style is ToolCallStyle.LLAMA:
            text = self._text([*thoughts, *_LLAMA_MARKERS], unlike=_LLAMA_OPENING)
            tagged = self._text_up_to(_PYTHON_TAG, [*thoughts, *_LLAMA_MARKERS[1:]], unlike=_LLAMA_OPENING)
            return f"({text} | {tagged} {calls} | {calls})"
        text, tagged = self._text([*thoughts, syntax.marker]), self._text_up_to(syntax.marker, thoughts)
        if self._format.tool_end:
            return f"({tagged} call){{0,{syntax.max_calls if is_parallel else 1}}} {text}"
        return f"({tagged} {calls} | {text})"

    def _with_call(self, tools: CallableTools, *, in_json_pieces: bool = False) -> _CallSyntax:
        """Add the rule `call` for one call of any of the tools; returns the syntax around it."""
        syntax = _call_syntax(self._format, [name for name, _ in tools])
        options = []
        for name, schema in tools:
            written = json.dumps(name)[1:-1] if syntax.quotes_name else name
            if in_json_pieces:
                opening = _JSON_PIECE.findall(f"{syntax.before_name}{written}{syntax.before_arguments}")
                options.append(" ".join([*map(_literal, opening), self.schema(schema)]))
            else:
                before, after = self._marker(syntax.before_name), self._marker(syntax.before_arguments)
                options.append(f"{before} {_literal(written)} {after} {self.schema(schema)}")
        self._rules.append(f"call: ({' | '.join(options)}) {self._marker(syntax.after_arguments)}")
        return syntax

    def _calls(self, syntax: _CallSyntax, *, is_parallel: bool) -> str:
        num_more = syntax.max_calls - 1 if is_parallel else 0
        more = f"({self._marker(syntax.between)} call){{0,{num_more}}}" if num_more else ""
        return f"{self._marker(syntax.before)} call {more} {self._marker(syntax.after)}"

    def alone(self, answer: str) -> str:
        """The grammar of a completion that consists of the answer only."""
        return "\n".join([f"start: {answer}", *self._rules])

    def thought_end(self) -> str:
        """The marker that ends reasoning; empty if the format has none."""
        return _END if self._style is ToolCallStyle.HARMONY else self._format.think_end or ""

    def after_reasoning(self, answer: str, *, starts_in_reasoning: bool, is_exact: bool = False) -> str:
        """The grammar of a completion that may start with reasoning.

        Reasoning that the prompt has opened must be closed. Otherwise the model decides whether to open it.

        Args:
            is_exact: the answer is to the letter: no line may end before it unless reasoning does.
        """
        others: tuple[str, ...] = ()
        if self._style is ToolCallStyle.HARMONY:
            opening, others, before, after = _ASIDES[0], _HARMONY_MARKERS, self._marker(_NEXT_MESSAGE), ""
        else:
            opening, before, after = self._format.think_start or "", "", "LINE_ENDS?"
            self._rules.append(r"LINE_ENDS: /\n{1,2}/")  # what chat models put between reasoning and answer
        self._rules.append(f"thought: {self._text_up_to(self.thought_end(), others)}")
        if starts_in_reasoning:
            return self.alone(f"thought {before} {after} ({answer})")
        thought = f"{self._marker(opening)} thought {before}"
        return self.alone(f"({thought} {after})? ({answer})" if is_exact else f"({thought})? {after} ({answer})")

    def _text(self, without: Collection[str], *, unlike: str = "") -> str:
        """Add a rule for free text, which may be empty; returns its name.

        Args:
            without: strings that must not occur in the text.
            unlike: a pattern that the text must not start with.
        """
        name = f"TEXT_{len(self._rules)}"
        self._rules.append(f"{name}: {_excluding('(?s:.*)', without, unlike)}")
        return name

    def _text_up_to(self, marker: str, without: Collection[str], *, unlike: str = "") -> str:
        """The rule body of free text up to and including the first `marker`, as a special token or as text."""
        name = f"spelled_{len(self._rules)}"
        self._rules.append(f"{name}[lazy]: {_excluding(f'(?s:.*){_pattern(marker)}', without, unlike)}")
        if all(isinstance(part, str) for part in self._take_apart(marker)):
            return name
        return f"({self._text([*without, marker], unlike=unlike)} {self._marker(marker)} | {name})"

    def _marker(self, text: str) -> str:
        parts = self._take_apart(text)
        return " ".join(_literal(part) if isinstance(part, str) else f"<[{part}]>" for part in parts)


def has_reasoning(output_format: OutputFormat) -> bool:
    """Whether completions of this format may start with reasoning that has markers."""
    return output_format.tool_call_style is ToolCallStyle.HARMONY or bool(
        output_format.think_start and output_format.think_end
    )


def _call_syntax(output_format: OutputFormat, names: Iterable[str]) -> _CallSyntax:
    start, end = output_format.tool_start or "", output_format.tool_end
    match output_format.tool_call_style:
        case ToolCallStyle.ARRAY:
            return _CallSyntax(before="[", after="]")
        case ToolCallStyle.HARMONY:
            channel, body = "<|channel|>commentary to=functions.", " <|constrain|>json<|message|>"
            return _CallSyntax("", "", channel, body, "", quotes_name=False, max_calls=1)
        case ToolCallStyle.LLAMA:
            return _CallSyntax(before_arguments='", "parameters": ', between="; ")
        case ToolCallStyle.MISTRAL if all(map(_MISTRAL_NAME.fullmatch, names)):
            return _CallSyntax(start, "", "", "[ARGS]", "", start, quotes_name=False)
    if end:
        return _CallSyntax(start, "", '\n{"name": "', after_arguments=f"}}\n{end}", between=f"\n{start}")
    return _CallSyntax(start, before="[", after="]")


def _excluding(pattern: str, without: Collection[str], unlike: str) -> str:
    """A terminal that matches `pattern`, contains none of `without`, and does not start with `unlike`."""
    excluded = [rf"(?s:.*)({'|'.join(map(_pattern, without))})(?s:.*)"] if without else []
    excluded += [f"{unlike}(?s:.*)"] if unlike else []
    return " & ".join([f"/{pattern}/", *(f"~/{other}/" for other in excluded)])


def _pattern(text: str) -> str:
    return re.escape(text).replace("/", r"\/")


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
