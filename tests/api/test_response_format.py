"""Structured answers: one schema, whichever of the known fields it comes in."""

from __future__ import annotations

from typing import Any

import pytest

from periscope.api.errors import UnsupportedParameter
from periscope.api.openai.chat import decode
from periscope.core import MAX_GRAMMAR_CHARS, AnswerGrammar, GenerationRequest, ResponseFormat, Tool
from periscope.errors import InvalidRequest

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
STRICT = {"name": "count", "strict": True, "description": "d", "schema": SCHEMA}
FORMAT = {"type": "json_schema", "json_schema": STRICT}
IN_FORMAT = "response_format.json_schema.schema"
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def request_of(**fields: Any) -> GenerationRequest:
    return decode({"messages": [{"role": "user", "content": "Hi"}]} | fields, "x").request


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, ResponseFormat({"type": "object"}, "response_format")),
        (
            {"response_format": {"type": "json_object", "schema": SCHEMA}},
            ResponseFormat(SCHEMA, "response_format.schema"),
        ),
        ({"response_format": FORMAT}, ResponseFormat(SCHEMA, IN_FORMAT)),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}, "strict": False}}},
            ResponseFormat({}, IN_FORMAT),
        ),
        ({"guided_json": SCHEMA}, ResponseFormat(SCHEMA, "guided_json")),
        ({"structured_outputs": {"json": SCHEMA}}, ResponseFormat(SCHEMA, "structured_outputs.json")),
        (
            {"structured_outputs": {"json_object": True}},
            ResponseFormat({"type": "object"}, "structured_outputs.json_object"),
        ),
        ({"guided_regex": "a+"}, AnswerGrammar(regex="a+", param="guided_regex")),
        ({"guided_choice": ["a", "b"]}, AnswerGrammar(choices=("a", "b"), param="guided_choice")),
        ({"guided_grammar": "root ::= x"}, AnswerGrammar(grammar="root ::= x", param="guided_grammar")),
        ({"structured_outputs": {"regex": "a+"}}, AnswerGrammar(regex="a+", param="structured_outputs.regex")),
        ({"structured_outputs": {"choice": ["a"]}}, AnswerGrammar(choices=("a",), param="structured_outputs.choice")),
        ({"structured_outputs": {"grammar": "g"}}, AnswerGrammar(grammar="g", param="structured_outputs.grammar")),
        ({"grammar": "root ::= x"}, AnswerGrammar(grammar="root ::= x", param="grammar")),
        ({"grammar": ""}, None),
        ({"guided_choice": ["a"], "tools": TOOLS}, AnswerGrammar(choices=("a",), param="guided_choice")),
        ({"guided_regex": "a", "tools": TOOLS, "tool_choice": "none"}, AnswerGrammar(regex="a", param="guided_regex")),
        ({"json_schema": SCHEMA}, ResponseFormat(SCHEMA, "json_schema")),
        ({"json_schema": SCHEMA, "response_format": {"type": "text"}}, ResponseFormat(SCHEMA, "json_schema")),
    ],
)
def test_the_schema_arrives_with_its_place(fields: dict[str, Any], expected: ResponseFormat | None) -> None:
    """Whatever dialect says it, the engine gets one schema and knows the field to blame."""
    assert request_of(**fields).output.response_format == expected


def test_a_schema_stands_beside_stop() -> None:
    """Neither is in the other's way."""
    request = request_of(response_format=FORMAT, stop="END")
    assert (request.output.response_format, request.params.stop) == (ResponseFormat(SCHEMA, IN_FORMAT), ("END",))


@pytest.mark.parametrize("choice", [None, "auto", "required", "none"])
def test_a_schema_stands_beside_tools(choice: str | None) -> None:
    """The answer is calls or fits the schema: agents send both; what must not be called is not offered."""
    request = request_of(response_format=FORMAT, tools=TOOLS, tool_choice=choice)
    assert request.output.response_format == ResponseFormat(SCHEMA, IN_FORMAT)
    assert request.output.tools == (() if choice == "none" else (Tool("f"),))


@pytest.mark.parametrize(
    ("fields", "param", "error"),
    [
        ({"response_format": "json_object"}, "response_format", InvalidRequest),
        ({"response_format": {}}, "response_format.type", InvalidRequest),
        ({"response_format": {"type": 5}}, "response_format.type", InvalidRequest),
        ({"response_format": {"type": "xml"}}, "response_format.type", InvalidRequest),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", InvalidRequest),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, IN_FORMAT, InvalidRequest),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": True}}}, IN_FORMAT, InvalidRequest),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": None}}}, IN_FORMAT, InvalidRequest),
        (
            {"response_format": {"type": "json_schema", "json_schema": STRICT | {"strict": "yes"}}},
            "response_format.json_schema.strict",
            InvalidRequest,
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": STRICT | {"name": 5}}},
            "response_format.json_schema.name",
            InvalidRequest,
        ),
        ({"response_format": {"type": "json_object", "schema": 5}}, "response_format.schema", InvalidRequest),
        ({"guided_json": "{}"}, "guided_json", InvalidRequest),
        ({"json_schema": [SCHEMA]}, "json_schema", InvalidRequest),
        ({"structured_outputs": {"json": "{}"}}, "structured_outputs.json", InvalidRequest),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag", UnsupportedParameter),
        ({"structured_outputs": {"json": SCHEMA, "choice": ["a"]}}, "structured_outputs.choice", InvalidRequest),
        ({"guided_regex": "a", "grammar": "root ::= x"}, "grammar", InvalidRequest),
        ({"guided_regex": ["a"]}, "guided_regex", InvalidRequest),
        ({"guided_choice": []}, "guided_choice", InvalidRequest),
        ({"guided_choice": [1]}, "guided_choice[0]", InvalidRequest),
        ({"guided_grammar": ""}, "guided_grammar", InvalidRequest),
        ({"guided_regex": "a" * (MAX_GRAMMAR_CHARS + 1)}, "guided_regex", InvalidRequest),
        ({"guided_grammar": "root ::= x", "tools": TOOLS}, "guided_grammar", InvalidRequest),
        ({"response_format": FORMAT, "guided_json": SCHEMA}, "guided_json", InvalidRequest),
    ],
)
def test_what_cannot_be_enforced_is_refused(fields: Any, param: str, error: type[InvalidRequest]) -> None:
    """Peers ignore it and answer 200; here the error names the field."""
    with pytest.raises(InvalidRequest) as caught:
        request_of(**fields)
    assert caught.type is error
    assert caught.value.param == param
    assert param in caught.value.message
