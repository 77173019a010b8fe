"""Structured output: grammars that leave a model only the tokens a JSON schema or a forced tool call allows.

Grammars are compiled off the worker threads; each row of a batch owns a matcher on its worker. Knows no HTTP.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from periscope.core import (
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
from periscope.engine.structured.grammar_errors import NOTHING_FITS, explained
from periscope.engine.structured.grammar_text import GrammarText, Marker, has_reasoning
from periscope.engine.structured.json_schema import check_enforceable, children_of, place_of
from periscope.engine.structured.matcher import Grammar
from periscope.engine.structured.number_bounds import DigitTokens
from periscope.engine.structured.schema_rewrites import max_number_digits, rewritten
from periscope.engine.structured.token_bits import WORD_BITS, allowed_words, num_words, unpacked
from periscope.engine.structured.token_tree import token_tree
from periscope.errors import InvalidRequest

#: Compiled grammars kept; a client repeats its few schemas.
MAX_CACHED_GRAMMARS = 32
#: Tokens tried before a grammar is taken: enough to meet what a compiler cannot see, such as an object that has to
#: hold itself or a choice too wide for one step.
_NUM_TRIED_TOKENS = 16
#: A row's automaton takes 20 to 40 MB at worst (ordinary schemas: a few hundred states), a step some 10 ms at worst.
#: An optional property takes four items, so an object may have about a thousand.
_LIMITS = LLParserLimits(max_lexer_states=20_000, max_items_in_row=4_000, verbose_errors=False)
#: Schemas inside a refused one that are tried to find the one to blame.
_MAX_LOOKS = 64
#: What may stand in the header of a message of gpt-oss.
_HARMONY_NAME = re.compile(r"[^\s<>]*")
_BITS = np.left_shift(np.uint32(1), np.arange(WORD_BITS, dtype=np.uint32))


class GrammarCompiler:
    """Owns one text model's compiled grammars and the tokenizer they are compiled for. Thread-safe; may block.

    Args:
        tokenizer: mlx-lm's wrapper.
        vocab_size: width of the model's logits; may be more than the tokenizer knows.
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
        """What completions of this spec must fit, and how they are read.

        Raises:
            InvalidRequest: a schema cannot be enforced or satisfied, or a tool to be called is not offered.
        """
        tools, choice = spec.callable_by(self._own_format), spec.tool_choice
        is_parallel, grammar = choice.is_parallel, None
        match spec.kind_for(self._own_format):
            case ConstraintKind.CALLS:
                grammar = self.tool_call(tools, choice, starts_in_reasoning=starts_in_reasoning)
            case ConstraintKind.JSON:
                assert spec.response_format is not None  # noqa: S101 - what the kind means
                grammar = self.json(
                    spec.response_format, tools, is_parallel=is_parallel, starts_in_reasoning=starts_in_reasoning
                )
            case ConstraintKind.TEXT:
                grammar = self.text(tools, is_parallel=is_parallel, starts_in_reasoning=starts_in_reasoning)
        output_format = replace(spec.format_for(self._own_format), starts_in_reasoning=starts_in_reasoning)
        return Constraint(grammar, output_format)

    def json(
        self,
        format: ResponseFormat,  # noqa: A002 - the client's word
        tools: Sequence[Tool] = (),
        *,
        is_parallel: bool = True,
        starts_in_reasoning: bool,
    ) -> Grammar:
        """The answer is JSON of this schema, or one or more calls of these tools, and nothing else.

        Reasoning may go before. Arguments fit the schemas of strict tools, and are any object for others.

        Raises:
            InvalidRequest: a schema cannot be enforced or satisfied; names the keyword.
        """
        answer, called = _Part.of_answer(format), [_Part.of_arguments(tool) for tool in tools]

        def write(text: GrammarText) -> str:
            if not called:
                return text.json(answer.schema)
            return text.json_or_calls(answer.schema, _by_name(called), is_parallel=is_parallel)

        kind = f"json {is_parallel}"
        grammar = self._compiled(kind, [answer, *called], write, starts_in_reasoning=starts_in_reasoning)
        if self._output_format.tool_call_style is ToolCallStyle.LLAMA:
            self._check_unlike_calls(answer, [tool.name for tool in tools if tool.is_strict])
        return grammar

    def text(self, tools: Sequence[Tool], *, is_parallel: bool, starts_in_reasoning: bool) -> Grammar:
        """The answer is as the model likes, but what it calls is one of these tools, with arguments as for `json`.

        Raises:
            InvalidRequest: a strict tool's parameters cannot be enforced; names the keyword.
        """
        called = [_Part.of_arguments(tool) for tool in tools]

        def write(text: GrammarText) -> str:
            return text.text_and_calls(_by_name(called), is_parallel=is_parallel)

        return self._compiled(f"text {is_parallel}", called, write, starts_in_reasoning=starts_in_reasoning)

    def tool_call(self, tools: Sequence[Tool], choice: ToolChoice, *, starts_in_reasoning: bool) -> Grammar:
        """The answer is one or more tool calls and nothing else. Reasoning may go before.

        Raises:
            InvalidRequest: no such tool, or a tool's parameters cannot be enforced; names the keyword.
        """
        offered = [tool for tool in tools if choice.name is None or tool.name == choice.name]
        if not offered:
            name = "" if choice.name is None else f" named {choice.name!r}"
            raise InvalidRequest(f"`tool_choice` asks for a call, but no tool{name} is offered.", param="tool_choice")
        called = [_Part.of_arguments(tool, is_forced=True) for tool in offered]

        def write(text: GrammarText) -> str:
            return text.calls(_by_name(called), is_parallel=choice.is_parallel)

        kind = f"calls {choice.is_parallel}"
        return self._compiled(kind, called, write, starts_in_reasoning=starts_in_reasoning)

    def _compiled(
        self, kind: str, parts: Sequence[_Part], write: Callable[[GrammarText], str], *, starts_in_reasoning: bool
    ) -> Grammar:
        reasons = has_reasoning(self._output_format)
        is_open = reasons and starts_in_reasoning
        key = f"{kind} {is_open} {_serialised(parts)}"
        with self._lock:
            if key in self._grammars:
                self._grammars.move_to_end(key)
                return self._grammars[key]
            tokens = self._tokens()
        for part in parts:
            self._check_part(part, tokens)
        text = GrammarText(self._take_apart, self._output_format)
        answer = write(text)
        lark = text.after_reasoning(answer, starts_in_reasoning=is_open) if reasons else text.alone(answer)
        matcher = _compile(tokens, lark, parts[0].param)
        with self._lock:
            digits, closing = self._token_kinds(tokens)
            new = Grammar(
                matcher,
                tokens,
                self._vocab_size,
                digits=digits,
                max_whole_digits=max(max_number_digits(part.schema) for part in parts),
                closing=closing,
                thoughts=self._thoughts(tokens, text.thought_end(), is_open=is_open) if reasons else Thoughts(),
            )
            grammar = self._grammars.setdefault(key, new)
            while len(self._grammars) > MAX_CACHED_GRAMMARS:
                self._grammars.popitem(last=False)
        return grammar

    def _check_part(self, part: _Part, tokens: LLTokenizer) -> None:
        """By itself it can be compiled, and begun.

        Raises:
            InvalidRequest: it cannot; says which part.
        """
        is_raw_name = self._output_format.tool_call_style is ToolCallStyle.HARMONY
        if is_raw_name and not _HARMONY_NAME.fullmatch(part.name):
            raise InvalidRequest(
                f"This model cannot be held to a call of a tool named {part.name!r}: blanks, `<` and `>` end its "
                "names. Rename the tool.",
                param=part.param,
            )
        try:
            self._try_alone(part.schema, part.param, tokens)
        except InvalidRequest as error:
            raise part.refusal(error, self._place_of_failure(part, tokens)) from None

    def _try_alone(self, schema: JSONObject, param: str, tokens: LLTokenizer) -> None:
        text = GrammarText(self._take_apart, self._output_format)
        _try_out(_compile(tokens, text.alone(text.schema(schema)), param), param)

    def _place_of_failure(self, part: _Part, tokens: LLTokenizer) -> str:
        """Where the smallest schema stands inside the part's that cannot be enforced by itself; empty = all of it."""
        place, node, num_tries = "", part.source, 0
        while True:
            for keyword, name, below in children_of(node):
                num_tries += 1
                if num_tries > _MAX_LOOKS:
                    return place
                if isinstance(below, dict) and not self._is_enforceable(rewritten(part.source, below), tokens):
                    place, node = place + place_of(keyword, name), below
                    break
            else:
                return place

    def _is_enforceable(self, schema: JSONObject, tokens: LLTokenizer) -> bool:
        try:
            self._try_alone(schema, "", tokens)
        except InvalidRequest:
            return False
        return True

    def _check_unlike_calls(self, answer: _Part, names: Sequence[str]) -> None:
        """Llama marks its calls by nothing but how they begin.

        Raises:
            InvalidRequest: JSON of this schema might begin like a call, whose arguments nothing would hold.
        """
        tokens = self._tokens()
        text = GrammarText(self._take_apart, self._output_format)
        matcher = _compile(tokens, text.alone(text.schema(answer.schema)), answer.param)
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
        """The added tokens of a marker, which no text spells, and the text between them."""
        ids = {token: token_id for token, token_id in self._tokenizer.get_added_vocab().items() if token in text}
        special = {token: id_ for token, id_ in ids.items() if self._tokens().is_special_token(id_)}
        if not special:
            return [text] if text else []
        pattern = "|".join(re.escape(token) for token in sorted(special, key=len, reverse=True))
        parts: list[str] = [part for part in re.split(f"({pattern})", text) if part]
        return [special.get(part, part) for part in parts]

    def _tokens(self) -> LLTokenizer:
        """The vocabulary as llguidance wants it: seconds for a big one, so only when it is needed, and once."""
        if self._token_tree is None:
            self._token_tree = token_tree(self._tokenizer, self._vocab_size, self._eos_token_ids)
        return self._token_tree

    def _token_kinds(self, tokens: LLTokenizer) -> tuple[DigitTokens, ClosingTokens]:
        """As the vocabulary: once, under the lock."""
        if self._kinds is None:
            num_tokens = min(tokens.vocab_size, self._vocab_size)
            num_bits = num_words(self._vocab_size) * WORD_BITS
            token_bytes = [tokens.decode_bytes([token_id]) for token_id in range(num_tokens)]
            closing = ClosingTokens(token_bytes, self._eos_token_ids, num_bits)
            self._kinds = DigitTokens(token_bytes, num_bits), closing
        return self._kinds

    def _thoughts(self, tokens: LLTokenizer, end: str, *, is_open: bool) -> Thoughts:
        """How reasoning is ended early: by its marker, be that a token or text."""
        first, *_ = self._take_apart(end)
        if isinstance(first, int):
            return Thoughts(end_tokens=(first,))
        start = (self._output_format.think_start or "").encode()
        return Thoughts((), start, end.encode(), tuple(tokens.tokenize_str(end)), is_open)


def apply_bits(logits: mx.array, bits: NDArray[np.uint32]) -> mx.array:
    """Logits with what is not allowed at minus infinity, on any device; words go over, a 32nd of the vocabulary.

    Args:
        logits: (rows, vocabulary).
        bits: (rows, words) of `Matcher.allowed_bits`.
    """
    is_allowed = (mx.array(bits)[..., None] & mx.array(_BITS)) != 0
    is_allowed = is_allowed.reshape(logits.shape[0], -1)[:, : logits.shape[-1]]
    return mx.where(is_allowed, logits, mx.array(-mx.inf, dtype=logits.dtype))


_LEAVE_STRICT_OUT = " Or leave the tool's `strict` out."


@dataclass(frozen=True, slots=True)
class _Part:
    """A schema inside a grammar, and where it comes from.

    Attributes:
        schema: as it is compiled.
        source: as the client wrote it.
        name: of the tool it holds the arguments of.
        way_out: what else the client can do when it is refused.
    """

    schema: JSONObject
    param: str
    source: JSONObject
    name: str = ""
    way_out: str = ""

    @classmethod
    def of_answer(cls, format: ResponseFormat) -> _Part:  # noqa: A002 - the client's word
        check_enforceable(format.schema, format.param)
        return cls(rewritten(format.schema), format.param, format.schema)

    @classmethod
    def of_arguments(cls, tool: Tool, *, is_forced: bool = False) -> _Part:
        """The tool's parameters, as an object whatever they leave open; any object where nothing has to hold them.

        Raises:
            InvalidRequest: they are no object, or cannot be enforced.
        """
        parameters = {key: value for key, value in tool.parameters.items() if key != "nullable"}
        part = cls({"type": "object"}, "tools", parameters, tool.name, "" if is_forced else _LEAVE_STRICT_OUT)
        if not tool.is_strict and not is_forced:
            return part
        declared = parameters.get("type") or "object"
        if declared != "object" and not (isinstance(declared, list) and "object" in declared):
            raise part.refusal(InvalidRequest("The parameters must be of type `object`."))
        try:
            check_enforceable(parameters, part.param)
        except InvalidRequest as error:
            raise part.refusal(error) from None
        if parameters.get("$ref") is None:  # it says itself what it is; beside one to itself no `type` is taken
            parameters = {**parameters, "type": "object"}
        return replace(part, schema=rewritten(parameters))

    def refusal(self, error: InvalidRequest, place: str = "") -> InvalidRequest:
        """The error, with the tool and the place in its schema that it is about."""
        whose = f"Tool `{self.name}`: " if self.name else ""
        where = f"At `{place}`: " if place else ""
        return InvalidRequest(f"{whose}{where}{error.message}{self.way_out}", param=self.param)


def _by_name(parts: Sequence[_Part]) -> list[tuple[str, JSONObject]]:
    return [(part.name, part.schema) for part in parts]


def _serialised(parts: Sequence[_Part]) -> str:
    """As JSON; keys keep their order, which is the order a model writes them in."""
    try:
        return json.dumps([(part.name, part.schema) for part in parts], allow_nan=False)
    except (RecursionError, ValueError):
        raise InvalidRequest(
            "The schema is nested too deep, or holds a number that JSON has not.", param=parts[0].param
        ) from None


def _compile(tokens: LLTokenizer, lark: str, param: str) -> LLMatcher:
    matcher = LLMatcher(tokens, LLMatcher.grammar_from_lark(lark), log_level=0, limits=_LIMITS)
    complaints = [matcher.get_error()] if matcher.is_error() else matcher.get_grammar_warnings()
    if complaints:
        raise InvalidRequest(f"This schema cannot be enforced: {explained(complaints[0])}.", param=param)
    return matcher


def _try_out(matcher: LLMatcher, param: str) -> None:
    """Write a few tokens: it has to be possible, and cheap enough."""
    for _ in range(_NUM_TRIED_TOKENS):
        allowed = np.flatnonzero(unpacked(allowed_words(matcher)))
        if matcher.is_error() or not len(allowed):
            reason = explained(matcher.get_error()) if matcher.is_error() else NOTHING_FITS
            raise InvalidRequest(f"This schema cannot be enforced: {reason}.", param=param)
        if matcher.is_accepting():
            return
        matcher.consume_token(int(allowed[0]))
