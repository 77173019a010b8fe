"""Decodes the format of the answer from OpenAI's field, vLLM's two, or llama.cpp's. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from periscope.api.schema_nulls import without_nulls
from periscope.api.wording import kind_of
from periscope.core import ResponseFormat
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.openai.schema import ChatCompletionWire, ResponseFormatWire
    from periscope.core import JSONObject


def decode_response_format(wire: ChatCompletionWire) -> ResponseFormat | None:
    """The schema that the answer must fit; None = free text.

    Raises:
        InvalidRequest: there are two, or `response_format` is of no known type.
    """
    outputs = wire.structured_outputs
    asked = [
        *_openai(wire.response_format),
        *_schema(wire.guided_json, "guided_json"),
        *_schema(None if outputs is None else outputs.json_, "structured_outputs.json"),
        *_schema(wire.json_schema, "json_schema"),
    ]
    if len(asked) > 1:
        raise InvalidRequest(
            f"`{asked[1].param}` and `{asked[0].param}` both say what the answer must be: leave one out.",
            param=asked[1].param,
        )
    return asked[0] if asked else None


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
