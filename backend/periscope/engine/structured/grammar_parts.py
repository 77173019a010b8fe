"""The parts of a completion's grammar that come from a request: schemas and grammars, and errors about them. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from periscope.core import AnswerGrammar, JSONObject, ResponseFormat, Tool
from periscope.engine.structured.answer_grammar import lark_of
from periscope.engine.structured.grammar_errors import NOTHING_FITS, explained, explained_grammar
from periscope.engine.structured.json_schema import check_enforceable
from periscope.engine.structured.schema_rewrites import rewritten
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.engine.structured.grammar_text import GrammarText


@dataclass(frozen=True, slots=True)
class Part:
    """A schema or a client's grammar within the grammar of a completion, and where it comes from.

    Attributes:
        schema: the schema as it is compiled.
        param: the field of the request that contains it.
        source: the schema as the client sent it.
        name: the tool whose arguments it constrains; empty for an answer.
        way_out: what the client can do instead, as a sentence for the error.
        lark: of an answer that is no JSON, the grammar in its place; then the schema is empty.
    """

    schema: JSONObject
    param: str
    source: JSONObject
    name: str = ""
    way_out: str = ""
    lark: str = ""

    @classmethod
    def of_answer(cls, format: ResponseFormat) -> Part:  # noqa: A002 - the client's word
        check_enforceable(format.schema, format.param)
        return cls(rewritten(format.schema), format.param, format.schema)

    @classmethod
    def of_arguments(cls, tool: Tool, *, is_forced: bool = False) -> Part:
        """The schema of a tool's arguments, always an object; any object if the tool is neither strict nor forced.

        Raises:
            InvalidRequest: the parameters are not of type object, or cannot be enforced.
        """
        parameters = {key: value for key, value in tool.parameters.items() if key != "nullable"}
        way_out = "" if is_forced else f" Or leave the tool's `{tool.strict_by}` out."
        part = cls({"type": "object"}, "tools", parameters, tool.name, way_out)
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

    @classmethod
    def of_grammar(cls, grammar: AnswerGrammar, *, unlike: str = "") -> Part:
        """The client's grammar. `unlike`: a text with which the answer must not begin, if there is one.

        Raises:
            InvalidRequest: it is GBNF with an error; says where.
        """
        return cls({}, grammar.param, {}, lark=lark_of(grammar, unlike=unlike))

    def write(self, text: GrammarText) -> str:
        """Add its rule; returns the rule's name."""
        return text.lark(self.lark) if self.lark else text.schema(self.schema)

    def unusable(self, message: str | None) -> InvalidRequest:
        """The error for what llguidance says about it; None = nothing fits it."""
        if not self.lark:
            told = NOTHING_FITS if message is None else explained(message)
            return InvalidRequest(f"This schema cannot be enforced: {told}.", param=self.param)
        told = NOTHING_FITS if message is None else explained_grammar(message)
        return InvalidRequest(f"`{self.param}` cannot be enforced: {told}.", param=self.param)

    def refusal(self, error: InvalidRequest, place: str = "") -> InvalidRequest:
        """The error, with the name of the tool and the path in its schema."""
        whose = f"Tool `{self.name}`: " if self.name else ""
        where = f"At `{place}`: " if place else ""
        return InvalidRequest(f"{whose}{where}{error.message}{self.way_out}", param=self.param)


def by_name(parts: Sequence[Part]) -> list[tuple[str, JSONObject]]:
    """The names of the parts and their schemas."""
    return [(part.name, part.schema) for part in parts]


def serialised(parts: Sequence[Part]) -> str:
    """The parts as JSON, for the cache key. Keys keep their order, in which the model writes them.

    Raises:
        InvalidRequest: a schema is nested too deep, or contains NaN or an infinity.
    """
    try:
        return json.dumps([(part.name, part.schema, part.lark) for part in parts], allow_nan=False)
    except (RecursionError, ValueError):
        raise InvalidRequest(
            "The schema is nested too deep, or holds a number that JSON has not.", param=parts[0].param
        ) from None
