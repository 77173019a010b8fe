"""Compiles JSON schemas and tool calls to grammars that constrain which tokens a model may generate.

Grammars are compiled on executor threads; each row of a batch owns a matcher on its worker thread. Knows no HTTP.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from periscope.core import (
    AnswerGrammar,
    ConstraintKind,
    JSONObject,
    OutputFormat,
    OutputSpec,
    ResponseFormat,
    Tool,
    ToolCallStyle,
    ToolChoice,
)
from periscope.engine.structured.closing import ClosingTokens, Thoughts
from periscope.engine.structured.constraint import Constraint
from periscope.engine.structured.fragments import fragments_of
from periscope.engine.structured.grammar_parts import Part, by_name, serialised
from periscope.engine.structured.grammar_text import GrammarText, Marker, has_reasoning
from periscope.engine.structured.json_schema import children_of, place_of
from periscope.engine.structured.matcher import Grammar
from periscope.engine.structured.number_bounds import DigitTokens
from periscope.engine.structured.schema_rewrites import SchemaRewriter, max_number_digits
from periscope.engine.structured.token_bits import WORD_BITS, allowed_words, num_words, unpacked
from periscope.engine.structured.token_tree import token_tree
from periscope.errors import InvalidRequest

#: Number of compiled grammars that are cached. A client repeats few schemas.
MAX_CACHED_GRAMMARS = 32
#: Tokens that are generated on trial before a grammar is accepted. Enough to find what the compiler does not detect,
#: such as an object that must contain itself or too many alternatives for one step.
_NUM_TRIED_TOKENS = 16
#: A row's automaton takes 20 to 40 MB at worst (ordinary schemas: a few hundred states), a step some 10 ms at worst.
#: An optional property takes four items, so an object may have about a thousand.
_LIMITS = LLParserLimits(max_lexer_states=20_000, max_items_in_row=4_000, verbose_errors=False)
#: CPU seconds after which no further subschema of a refused schema is compiled to find the one that cannot be enforced.
#: Small ones take less than a millisecond each.
_MAX_TRYING_S = 1.0
#: What may stand in the header of a message of gpt-oss.
_HARMONY_NAME = re.compile(r"[^\s<>]*")


class GrammarCompiler:
    """Owns one text model's compiled grammars and its llguidance tokenizer. Thread-safe; blocks while compiling.

    Args:
        tokenizer: mlx-lm's wrapper.
        vocab_size: width of the model's logits; may exceed the tokenizer's vocabulary.
    """

    def __init__(
        self, tokenizer: Any, *, vocab_size: int, eos_token_ids: Iterable[int], output_format: OutputFormat
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_token_ids = sorted(token_id for token_id in eos_token_ids if token_id < vocab_size)
        self._own_format = output_format
        self._output_format = output_format.constrained()
        self._lock = threading.Lock()
        self._token_tree: LLTokenizer | None = None
        self._kinds: tuple[DigitTokens, ClosingTokens] | None = None
        self._grammars: OrderedDict[str, Grammar] = OrderedDict()

    def constraint(self, spec: OutputSpec, *, starts_in_reasoning: bool) -> Constraint:
        """The grammar that constrains a chat's completions of this spec, and the format in which they are parsed.

        Raises:
            InvalidRequest: a schema cannot be enforced or satisfied, or a tool to be called is not offered.
        """
        tools, choice = spec.callable_by(self._own_format), spec.tool_choice
        is_parallel, grammar = choice.is_parallel, None
        match spec.kind_for(self._own_format):
            case ConstraintKind.CALLS:
                grammar = self.tool_call(tools, choice, starts_in_reasoning=starts_in_reasoning)
            case ConstraintKind.JSON:
                assert isinstance(spec.response_format, ResponseFormat)  # noqa: S101 - implied by the kind
                grammar = self.json(
                    spec.response_format, tools, is_parallel=is_parallel, starts_in_reasoning=starts_in_reasoning
                )
            case ConstraintKind.GRAMMAR:
                assert isinstance(spec.response_format, AnswerGrammar)  # noqa: S101 - implied by the kind
                grammar = self.answer(
                    spec.response_format, tools, is_parallel=is_parallel, starts_in_reasoning=starts_in_reasoning
                )
            case ConstraintKind.TEXT:
                grammar = self.text(tools, is_parallel=is_parallel, starts_in_reasoning=starts_in_reasoning)
        output_format = replace(spec.format_for(self._own_format), starts_in_reasoning=starts_in_reasoning)
        return Constraint(grammar, output_format)

    def of_text(self, answer: ResponseFormat | AnswerGrammar) -> Grammar:
        """Constrain the completion of a plain text: all of it is the answer, without reasoning or markers before it.

        Raises:
            InvalidRequest: the schema or the grammar cannot be enforced or satisfied.
        """
        part = Part.of_answer(answer) if isinstance(answer, ResponseFormat) else Part.of_grammar(answer)

        def write(text: GrammarText) -> str:
            return text.answer(part.write(text))

        return self._compiled("of text", [part], write, starts_in_reasoning=False, form=OutputFormat())

    def json(
        self,
        format: ResponseFormat,  # noqa: A002 - the client's word
        tools: Sequence[Tool] = (),
        *,
        is_parallel: bool = True,
        starts_in_reasoning: bool,
    ) -> Grammar:
        """Constrain the answer to JSON of this schema, or to one or more calls of these tools.

        Reasoning may come first. Arguments fit the schemas of strict tools, and are any object for others.

        Raises:
            InvalidRequest: a schema cannot be enforced or satisfied; names the keyword.
        """
        answer, called = Part.of_answer(format), [Part.of_arguments(tool) for tool in tools]

        def write(text: GrammarText) -> str:
            if not called:
                return text.json(answer.schema)
            return text.json_or_calls(answer.schema, by_name(called), is_parallel=is_parallel)

        kind = f"json {is_parallel}"
        grammar = self._compiled(kind, [answer, *called], write, starts_in_reasoning=starts_in_reasoning)
        if self._output_format.tool_call_style is ToolCallStyle.LLAMA:
            self._check_unlike_calls(answer, [tool.name for tool in tools if tool.is_strict])
        return grammar

    def answer(
        self,
        grammar: AnswerGrammar,
        tools: Sequence[Tool] = (),
        *,
        is_parallel: bool = True,
        starts_in_reasoning: bool,
    ) -> Grammar:
        """Constrain the answer to a text of the client's own grammar, or to calls, as for `json`.

        Reasoning may come first.

        Raises:
            InvalidRequest: the grammar has an error, is too complex, or allows what begins as a call does.
        """
        style, marker = self._output_format.tool_call_style, self._output_format.tool_start or ""
        if tools and style is ToolCallStyle.LLAMA:
            raise InvalidRequest(
                f"`{grammar.param}` cannot stand beside `tools` with this model, whose calls are told from its answers "
                "only by how they begin. Leave one out, or set `tool_choice` to none.",
                param=grammar.param,
            )
        has_marker = bool(tools) and style is not ToolCallStyle.HARMONY
        part = Part.of_grammar(grammar, unlike=marker if has_marker else "")
        called = [Part.of_arguments(tool) for tool in tools]

        def write(text: GrammarText) -> str:
            answer = text.answer(part.write(text))
            return f"{answer} | {text.calls(by_name(called), is_parallel=is_parallel)}" if called else answer

        kind = f"answer {is_parallel}"
        return self._compiled(kind, [part, *called], write, starts_in_reasoning=starts_in_reasoning)

    def text(self, tools: Sequence[Tool], *, is_parallel: bool, starts_in_reasoning: bool) -> Grammar:
        """Leave the answer free, but constrain its calls to these tools, with arguments as for `json`.

        Raises:
            InvalidRequest: a strict tool's parameters cannot be enforced; names the keyword.
        """
        called = [Part.of_arguments(tool) for tool in tools]

        def write(text: GrammarText) -> str:
            return text.text_and_calls(by_name(called), is_parallel=is_parallel)

        return self._compiled(f"text {is_parallel}", called, write, starts_in_reasoning=starts_in_reasoning)

    def tool_call(self, tools: Sequence[Tool], choice: ToolChoice, *, starts_in_reasoning: bool) -> Grammar:
        """Constrain the answer to one or more tool calls. Reasoning may come first.

        Raises:
            InvalidRequest: no such tool, or a tool's parameters cannot be enforced; names the keyword.
        """
        offered = [tool for tool in tools if choice.name is None or tool.name == choice.name]
        if not offered:
            name = "" if choice.name is None else f" named {choice.name!r}"
            raise InvalidRequest(f"`tool_choice` asks for a call, but no tool{name} is offered.", param="tool_choice")
        called = [Part.of_arguments(tool, is_forced=True) for tool in offered]

        def write(text: GrammarText) -> str:
            return text.calls(by_name(called), is_parallel=choice.is_parallel)

        kind = f"calls {choice.is_parallel}"
        return self._compiled(kind, called, write, starts_in_reasoning=starts_in_reasoning)

    def _compiled(
        self,
        kind: str,
        parts: Sequence[Part],
        write: Callable[[GrammarText], str],
        *,
        starts_in_reasoning: bool,
        form: OutputFormat | None = None,
    ) -> Grammar:
        """The grammar of these parts, from the cache if it is there. `form`: None = the model's own."""
        form = form or self._output_format
        reasons = has_reasoning(form)
        is_open = reasons and starts_in_reasoning
        key = f"{kind} {is_open} {serialised(parts)}"
        with self._lock:
            if key in self._grammars:
                self._grammars.move_to_end(key)
                return self._grammars[key]
            tokens = self._tokens()
        for part in parts:
            self._check_part(part, tokens)
        text = GrammarText(self._take_apart, form)
        answer = write(text)
        lark = text.alone(answer)
        if reasons:
            lark = text.after_reasoning(answer, starts_in_reasoning=is_open, is_exact=bool(parts[0].lark))
        matcher = _compile(tokens, lark, parts[0])
        with self._lock:
            digits, closing = self._token_kinds(tokens)
            new = Grammar(
                matcher,
                tokens,
                self._vocab_size,
                digits=digits,
                max_whole_digits=None if parts[0].lark else max(max_number_digits(part.schema) for part in parts),
                closing=closing,
                fragments=fragments_of([part.schema for part in parts], tokens, closing),
                thoughts=self._thoughts(tokens, text.thought_end(), is_open=is_open) if reasons else Thoughts(),
            )
            grammar = self._grammars.setdefault(key, new)
            while len(self._grammars) > MAX_CACHED_GRAMMARS:
                self._grammars.popitem(last=False)
        return grammar

    def _check_part(self, part: Part, tokens: LLTokenizer) -> None:
        """Check that one schema compiles alone and allows some output.

        Raises:
            InvalidRequest: it does not; names the part.
        """
        is_raw_name = self._output_format.tool_call_style is ToolCallStyle.HARMONY
        if is_raw_name and not _HARMONY_NAME.fullmatch(part.name):
            raise InvalidRequest(
                f"This model cannot be constrained to a call of a tool named {part.name!r}: blanks, `<` and `>` end "
                "its names. Rename the tool.",
                param=part.param,
            )
        until_s = time.thread_time() + _MAX_TRYING_S
        try:
            self._try_alone(part, tokens)
        except InvalidRequest as error:
            raise part.refusal(error, self._place_of_failure(part, tokens, until_s)) from None

    def _try_alone(self, part: Part, tokens: LLTokenizer) -> None:
        text = GrammarText(self._take_apart, self._output_format)
        _try_out(_compile(tokens, text.alone(part.write(text)), part), part)

    def _place_of_failure(self, part: Part, tokens: LLTokenizer, until_s: float) -> str:
        """Path of the innermost subschema that cannot be enforced on its own; empty = the whole schema.

        In a large schema the search may end early, with the path of one around it.
        """
        place, node, rewriter = "", part.source, SchemaRewriter(part.source)
        while True:
            for keyword, name, below in children_of(node):
                if time.thread_time() > until_s:
                    return place
                if isinstance(below, dict) and not self._is_enforceable(rewriter.rewritten(below), tokens):
                    place, node = place + place_of(keyword, name), below
                    break
            else:
                return place

    def _is_enforceable(self, schema: JSONObject, tokens: LLTokenizer) -> bool:
        try:
            self._try_alone(Part(schema, "", schema), tokens)
        except InvalidRequest:
            return False
        return True

    def _check_unlike_calls(self, answer: Part, names: Sequence[str]) -> None:
        """Check that JSON answers cannot be taken for calls, which Llama marks only by their first characters.

        Raises:
            InvalidRequest: JSON of this schema might start like a call, whose arguments would be unconstrained.
        """
        tokens = self._tokens()
        text = GrammarText(self._take_apart, self._output_format)
        matcher = _compile(tokens, text.alone(answer.write(text)), answer)
        for name in names:
            opening = tokens.tokenize_str(f'{{"name": {json.dumps(name)}, "parameters": {{')
            if matcher.validate_tokens(opening) == len(opening):
                raise InvalidRequest(
                    f"This model's calls are told from its answers by how they begin, and JSON of `{answer.param}` may "
                    f"begin like a call of the strict tool `{name}`. Let the schema name its properties, and not "
                    "`name` before `parameters`, or leave `strict` out.",
                    param=answer.param,
                )

    def _take_apart(self, text: str) -> Marker:
        """Split a marker into the ids of its special tokens and the text between them."""
        ids = {token: token_id for token, token_id in self._tokenizer.get_added_vocab().items() if token in text}
        special = {token: id_ for token, id_ in ids.items() if self._tokens().is_special_token(id_)}
        if not special:
            return [text] if text else []
        pattern = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True))
        parts: list[str] = [part for part in re.split(f"({pattern})", text) if part]
        return [special.get(part, part) for part in parts]

    def _tokens(self) -> LLTokenizer:
        """The vocabulary for llguidance, made once, at its first use: seconds for a big one."""
        if self._token_tree is None:
            self._token_tree = token_tree(self._tokenizer, self._vocab_size, self._eos_token_ids)
        return self._token_tree

    def _token_kinds(self, tokens: LLTokenizer) -> tuple[DigitTokens, ClosingTokens]:
        """The token tables for numbers and for closing. Made once, at their first use. Under the lock."""
        if self._kinds is None:
            num_tokens = min(tokens.vocab_size, self._vocab_size)
            num_bits = num_words(self._vocab_size) * WORD_BITS
            token_bytes = [tokens.decode_bytes([token_id]) for token_id in range(num_tokens)]
            closing = ClosingTokens(token_bytes, self._eos_token_ids, num_bits)
            self._kinds = DigitTokens(token_bytes, num_bits), closing
        return self._kinds

    def _thoughts(self, tokens: LLTokenizer, end: str, *, is_open: bool) -> Thoughts:
        """How reasoning ends: by a marker that is a token or text."""
        first, *_ = self._take_apart(end)
        if isinstance(first, int):
            return Thoughts(end_tokens=(first,))
        start = (self._output_format.think_start or "").encode()
        return Thoughts((), start, end.encode(), tuple(tokens.tokenize_str(end)), is_open)


def _compile(tokens: LLTokenizer, lark: str, part: Part) -> LLMatcher:
    matcher = LLMatcher(tokens, LLMatcher.grammar_from_lark(lark), log_level=0, limits=_LIMITS)
    complaints = [matcher.get_error()] if matcher.is_error() else matcher.get_grammar_warnings()
    if complaints:
        raise part.unusable(complaints[0])
    return matcher


def _try_out(matcher: LLMatcher, part: Part) -> None:
    """Generate a few tokens on trial.

    Raises:
        InvalidRequest: nothing is allowed, or the grammar exceeds the limits.
    """
    for _ in range(_NUM_TRIED_TOKENS):
        allowed = np.flatnonzero(unpacked(allowed_words(matcher)))
        if matcher.is_error() or not len(allowed):
            raise part.unusable(matcher.get_error() if matcher.is_error() else None)
        if matcher.is_accepting():
            return
        matcher.consume_token(int(allowed[0]))
