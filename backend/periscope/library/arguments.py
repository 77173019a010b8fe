"""Arguments of a call that are of another type than their annotations, told before any model works. Pure.

Type checkers tell them as well; notebooks have none.
"""

from __future__ import annotations

from collections.abc import Mapping

from periscope.core import AnswerGrammar, GenerationParams, OutputSpec, ResponseFormat
from periscope.errors import InvalidRequest


def check_arguments(model: object, params: object, output: object) -> None:
    """Raise `InvalidRequest`, which names the argument and what it must be, if one is of a wrong type."""
    _check("model", model, str, 'a name, or "" for the default one')
    _check("params", params, GenerationParams, "`GenerationParams(...)`")
    _check("output", output, OutputSpec, "`OutputSpec(...)`")
    assert isinstance(output, OutputSpec)  # noqa: S101 - for type checkers
    asked = output.response_format
    if asked is not None and not isinstance(asked, AnswerGrammar):
        _check("output.response_format", asked, ResponseFormat, "`ResponseFormat(schema)` or `AnswerGrammar(...)`")
        schema = "a JSON schema as a dict, such as a pydantic model's `model_json_schema()`"
        _check("output.response_format.schema", asked.schema, Mapping, schema)


def _check(param: str, value: object, wanted: type, told: str) -> None:
    if not isinstance(value, wanted):
        raise InvalidRequest(f"`{param}` is a {type(value).__name__}. It must be {told}.", param=param)
