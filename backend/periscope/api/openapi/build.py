"""The OpenAPI 3.1 document of an app, made of its routes and of the very models that decode bodies. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode, JsonSchemaValue

from periscope.api.errors import ROWS
from periscope.api.openapi import own_shapes, shapes
from periscope.api.openapi.declare import ACCEPTED, BODY, EVENTS, EXAMPLE, QUERY, REPLIES, STATUS, name_of
from periscope.api.routing import DocumentedRoute

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from periscope.core import JSONObject

_JSON: Final = "application/json"
#: The dialects whose errors have a shape of their own.
_ERRORS: Final = {
    "/v1/messages": ("AnthropicError", shapes.AnthropicError),
    "/mcp": ("JSONRPCError", own_shapes.JSONRPCError),
    "/": ("OpenAIError", shapes.OpenAIError),
}
_ABOUT: Final = (
    "Text models that answer about pictures. HEAD is answered like GET, without the body. Errors are told in the "
    "dialect of their path, and in Anthropic's on every path if the request has the header `anthropic-version`. "
    "Fields of a body that are not described are refused, or ignored with a line in the log."
)


def openapi_document(routes: Iterable[BaseRoute], version: str) -> JSONObject:
    """The document of these routes: some milliseconds for each.

    Raises:
        LookupError: a route says nothing of itself.
    """
    schemas = _Schemas()
    paths: dict[str, JSONObject] = {}
    for route in routes:
        for method, operation in _operations(route, schemas):
            paths.setdefault(route.path_format, {})[method] = operation  # type: ignore[attr-defined]
    errors = {name: _error(schemas, shape) for name, shape in _ERRORS.values()}
    keys = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Periscope", "description": _ABOUT, "version": version},
        "paths": paths,
        "components": {"schemas": schemas.all, "responses": errors, "securitySchemes": keys},
        "security": [{}, *({name: []} for name in keys)],
    }


#: The dialects have bodies of the same names.
_PREFIXES: Final = {".anthropic.": "Anthropic", ".responses.": "Responses"}


class _Schemas:
    """Owns the schemas of the document, by name."""

    def __init__(self) -> None:
        self.all: dict[str, JsonSchemaValue] = {}

    def ref(self, name: str, mode: JsonSchemaMode) -> JsonSchemaValue:
        """A reference to the schema of a type, which is added if it is new.

        Raises:
            ValueError: another schema has its name.
        """
        shape = resolve_name(name)
        prefix = next((prefix for room, prefix in _PREFIXES.items() if room in name), "")
        refs = f"#/components/schemas/{prefix}{{model}}"
        schema = TypeAdapter(shape).json_schema(ref_template=refs, mode=mode)
        for key, definition in {**schema.pop("$defs", {}), shape.__name__: schema}.items():
            if mode == "serialization" and "properties" in definition:
                definition.setdefault("additionalProperties", False)
            if self.all.setdefault(prefix + key, definition) != definition:
                raise ValueError(f"two schemas are called {prefix}{key}")
        return {"$ref": refs.format(model=shape.__name__)}


def _operations(route: BaseRoute, schemas: _Schemas) -> Iterator[tuple[str, JSONObject]]:
    """Each method of a route, but for HEAD."""
    if not isinstance(route, DocumentedRoute):
        told = f"{route} is not documented: add it to an APIRouter, with `**documented(...)`."
        raise LookupError(told)  # noqa: TRY004 - nobody passed a wrong type, a route was forgotten
    for method in sorted(set(route.methods or ()) - {"HEAD"}):
        yield method.lower(), _operation(method.lower(), route, schemas)


def _operation(method: str, route: DocumentedRoute, schemas: _Schemas) -> JSONObject:
    path, told = route.path_format, route.documentation
    operation = told["openapi_extra"]
    described: JSONObject = {"tags": told["tags"], "summary": told["summary"]}
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.param_convertors
    ]
    parameters = [*in_path, *operation[QUERY]]
    described["operationId"] = "_".join([method, *re.findall(r"[a-z0-9_.]+", path)])
    if parameters:
        described["parameters"] = parameters
    if BODY in operation:
        content = {_JSON: {"schema": schemas.ref(operation[BODY], "validation")}}
        if EXAMPLE in operation:
            content[_JSON]["example"] = operation[EXAMPLE]
        described["requestBody"] = {"required": True, "content": content}
    family, _ = next(family for prefix, family in _ERRORS.items() if path.startswith(prefix))
    errors = {f"{digit}XX": {"$ref": f"#/components/responses/{family}"} for digit in (4, 5)}
    answer = {str(operation[STATUS]): _answer(operation, schemas)} if STATUS in operation else {}
    described["responses"] = answer | errors
    if ACCEPTED in operation:
        described["responses"]["202"] = {"description": operation[ACCEPTED]}
    if path in _UNFIT_ANSWERS:
        described["responses"]["503"] = _answer({REPLIES: [name_of(own_shapes.UnfitHealth)]}, schemas)
    return described


#: Probes tell the server's state in a 503, too.
_UNFIT_ANSWERS: Final = frozenset({"/readyz", "/health"})


def _answer(operation: Mapping[str, Any], schemas: _Schemas) -> JSONObject:
    media_types = [name for name in operation[REPLIES] if "/" in name]
    refs = [schemas.ref(name, "serialization") for name in operation[REPLIES] if "/" not in name]
    content: JSONObject = {media_type: {"schema": {"type": "string"}} for media_type in media_types}
    if refs:
        content[_JSON] = {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}
    elif not media_types and EVENTS not in operation:
        content[_JSON] = {"schema": {"type": "object"}}
    if EVENTS in operation:
        content["text/event-stream"] = {}
        return {"description": f"The answer, or a stream of events: {operation[EVENTS]}", "content": content}
    return {"description": "The answer.", "content": content}


def _error(schemas: _Schemas, shape: type) -> JSONObject:
    codes = sorted({f"{row.status} `{row.code}`" for row in ROWS.values()})
    return {
        "description": f"An error; its code is one of: {', '.join(codes)}.",
        "headers": {
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds, where trying again helps."}
        },
        "content": {_JSON: {"schema": schemas.ref(name_of(shape), "serialization")}},
    }
