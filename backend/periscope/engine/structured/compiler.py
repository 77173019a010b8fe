"""Compiles JSON schemas and tool calls to grammars that constrain which tokens a model may generate.

Grammars are compiled on executor threads; each row of a batch owns a matcher on its worker thread. Knows no HTTP.
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
from periscope.engine.structured.fragments import fragments_of
from periscope.engine.structured.grammar_errors import NOTHING_FITS, explained
from periscope.engine.structured.grammar_text import GrammarText, Marker, has_reasoning
from periscope.engine.structured.json_schema import check_enforceable, children_of, place_of
from periscope.engine.structured.matcher import Grammar
from periscope.engine.structured.number_bounds import DigitTokens
from periscope.engine.structured.schema_rewrites import max_number_digits, rewritten
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
#: How many subschemas of a refused schema are compiled to find the one that cannot be enforced.
_MAX_LOOKS = 64
#: What may stand in the header of a message of gpt-oss.
_HARMONY_NAME = re.compile(r"[^\s<>]*")
_BITS = np.left_shift(np.uint32(1), np.arange(WORD_BITS, dtype=np.uint32))


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
        """The grammar that constrains completions of this spec, and the format in which they are parsed.

        Raises:
            InvalidRequest: a schema cannot be enforced or satisfied, or a tool to be called is not offered.
        """
        tools, choice = spec.callable_by(self._own_format), spec.tool_choice
        is_parallel, grammar = choice.is_parallel, None
        match spec.kind_for(self._own_format):
            case ConstraintKind.CALLS:
                grammar = self.tool_call(tools, choice, starts_in_reasoning=starts_in_reasoning)
            case ConstraintKind.JSON:
                assert spec.response_format is not None  # noqa: S101 - implied by the kind
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
        """Constrain the answer to JSON of this schema, or to one or more calls of these tools.

        Reasoning may come first. Arguments fit the schemas of strict tools, and are any object for others.

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
        """Leave the answer free, but constrain its calls to these tools, with arguments as for `json`.

        Raises:
            InvalidRequest: a strict tool's parameters cannot be enforced; names the keyword.
        """
        called = [_Part.of_arguments(tool) for tool in tools]

        def write(text: GrammarText) -> str:
            return text.text_and_calls(_by_name(called), is_parallel=is_parallel)

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
                fragments=fragments_of([part.schema for part in parts], tokens, closing),
                thoughts=self._thoughts(tokens, text.thought_end(), is_open=is_open) if reasons else Thoughts(),
            )
            grammar = self._grammars.setdefault(key, new)
            while len(self._grammars) > MAX_CACHED_GRAMMARS:
                self._grammars.popitem(last=False)
        return grammar

    def _check_part(self, part: _Part, tokens: LLTokenizer) -> None:
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
        try:
            self._try_alone(part.schema, part.param, tokens)
        except InvalidRequest as error:
            raise part.refusal(error, self._place_of_failure(part, tokens)) from None

    def _try_alone(self, schema: JSONObject, param: str, tokens: LLTokenizer) -> None:
        text = GrammarText(self._take_apart, self._output_format)
        _try_out(_compile(tokens, text.alone(text.schema(schema)), param), param)

    def _place_of_failure(self, part: _Part, tokens: LLTokenizer) -> str:
        """Path of the innermost subschema that cannot be enforced on its own; empty = the whole schema."""
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
        """Check that JSON answers cannot be taken for calls, which Llama marks only by their first characters.

        Raises:
            InvalidRequest: JSON of this schema might start like a call, whose arguments would be unconstrained.
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


def apply_bits(logits: mx.array, bits: NDArray[np.uint32]) -> mx.array:
    """Set the logits of tokens that are not allowed to minus infinity, on any device.

    The mask is transferred as packed words, one per 32 tokens, and unpacked on the device.

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
    """A schema in a grammar, and where it comes from.

    Attributes:
        schema: the schema as it is compiled.
        param: the field of the request that contains it.
        source: the schema as the client sent it.
        name: the tool whose arguments it constrains; empty for an answer.
        way_out: what the client can do instead, as a sentence for the error.
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
        """The schema of a tool's arguments, always an object; any object if the tool is neither strict nor forced.

        Raises:
            InvalidRequest: the parameters are not of type object, or cannot be enforced.
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
        if parameters.get("$ref") is None:  # else the referenced schema states its type
            parameters = {**parameters, "type": "object"}
        return replace(part, schema=rewritten(parameters))

    def refusal(self, error: InvalidRequest, place: str = "") -> InvalidRequest:
        """The error, with the name of the tool and the path in its schema."""
        whose = f"Tool `{self.name}`: " if self.name else ""
        where = f"At `{place}`: " if place else ""
        return InvalidRequest(f"{whose}{where}{error.message}{self.way_out}", param=self.param)


def _by_name(parts: Sequence[_Part]) -> list[tuple[str, JSONObject]]:
    return [(part.name, part.schema) for part in parts]


def _serialised(parts: Sequence[_Part]) -> str:
    """The parts as JSON, for the cache key. Keys keep their order, in which the model writes them.

    Raises:
        InvalidRequest: a schema is nested too deep, or contains NaN or an infinity.
    """
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
    """Generate a few tokens on trial.

    Raises:
        InvalidRequest: nothing is allowed, or the grammar exceeds the limits.
    """
    for _ in range(_NUM_TRIED_TOKENS):
        allowed = np.flatnonzero(unpacked(allowed_words(matcher)))
        if matcher.is_error() or not len(allowed):
            reason = explained(matcher.get_error()) if matcher.is_error() else NOTHING_FITS
            raise InvalidRequest(f"This schema cannot be enforced: {reason}.", param=param)
        if matcher.is_accepting():
            return
        matcher.consume_token(int(allowed[0]))
