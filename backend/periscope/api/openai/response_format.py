"""Decodes the format of the answer from OpenAI's field, vLLM's, or llama.cpp's. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from periscope.api.openai.schema import StructuredOutputsWire
from periscope.api.schema_nulls import without_nulls
from periscope.api.wording import kind_of
from periscope.core import AnswerGrammar, ResponseFormat
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.openai.schema import GenerationWire, ResponseFormatWire
    from periscope.core import JSONObject


_Format: TypeAlias = ResponseFormat | AnswerGrammar
_NO_OUTPUTS = StructuredOutputsWire()


def decode_response_format(wire: GenerationWire) -> _Format | None:
    """What the answer must fit; None = free text.

    Raises:
        InvalidRequest: there are two, one is empty or too long, or `response_format` is of no known type.
    """
    outputs = wire.structured_outputs or _NO_OUTPUTS
    asked: list[_Format] = [
        *_openai(wire.response_format),
        *_schema(wire.guided_json, "guided_json"),
        *_schema(outputs.json_, "structured_outputs.json"),
        *_schema({"type": "object"} if outputs.json_object else None, "structured_outputs.json_object"),
        *_schema(wire.json_schema, "json_schema"),
        *_grammars(wire, outputs),
    ]
    if len(asked) > 1:
        raise InvalidRequest(
            f"`{asked[1].param}` and `{asked[0].param}` both say what the answer must be: leave one out.",
            param=asked[1].param,
        )
    return asked[0] if asked else None


def _grammars(wire: GenerationWire, outputs: StructuredOutputsWire) -> Iterator[AnswerGrammar]:
    for param, regex in (("guided_regex", wire.guided_regex), ("structured_outputs.regex", outputs.regex)):
        if regex is not None:
            yield AnswerGrammar(regex=regex, param=param)
    for param, choices in (("guided_choice", wire.guided_choice), ("structured_outputs.choice", outputs.choice)):
        if choices is not None:
            yield AnswerGrammar(choices=tuple(choices), param=param)
    for param, grammar in (
        ("guided_grammar", wire.guided_grammar),
        ("structured_outputs.grammar", outputs.grammar),
        ("grammar", wire.grammar or None),  # llama.cpp's clients send "" for none
    ):
        if grammar is not None:
            yield AnswerGrammar(grammar=grammar, param=param)


def _openai(wire: ResponseFormatWire | None) -> list[ResponseFormat]:
    if wire is None or wire.type == "text":
        return []
    if wire.type == "json_object":
        any_object = [ResponseFormat({"type": "object"})]
        return _schema(wire.schema_, "response_format.schema") if wire.schema_ else any_object
    if wire.type != "json_schema":
        raise InvalidRequest(
            f"`response_format.type` must be text, json_object or json_schema, got {kind_of(wire.type)}.",
            param="response_format.type",
        )
    if wire.json_schema is None:
        param = "response_format.json_schema"
        raise InvalidRequest(f"`{param}` is missing: it holds the schema.", param=param)
    return _schema(wire.json_schema.schema_, "response_format.json_schema.schema")


def _schema(schema: JSONObject | None, param: str) -> list[ResponseFormat]:
    return [] if schema is None else [ResponseFormat(without_nulls(schema), param)]
