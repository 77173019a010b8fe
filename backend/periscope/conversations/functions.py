"""Python functions as tools: the schema comes from the signature, and pydantic checks each call by it."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, get_type_hints

import pydantic_core
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticUserError

from periscope.core import CallOutcome, FilePart, ImagePart, JSONObject, Part, TextPart, Tool, ToolResult
from periscope.errors import ConfigError

logger = logging.getLogger(__name__)

_PARTS: Final = (TextPart, ImagePart, FilePart)
_KINDS: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class FunctionTools:
    """A `ToolSource` of Python functions, plain ones and coroutines.

    Its name and docstring are what the model is told of a function, its annotations make the schema of its arguments;
    `Annotated[int, pydantic.Field(description=..., ge=0)]` says more about one. It returns a text, a part or a tuple of
    parts (an `ImagePart` is shown to the model as any other image), or anything that pydantic writes as JSON. What it
    raises is told to the model. A plain function runs in a thread, which cannot be ended: a cancelled conversation does
    not wait for it.

    Raises:
        ConfigError: a function has no schema (an argument without a type that JSON can hold, `*args`), or two have one
            name.
    """

    def __init__(self, functions: Iterable[Callable[..., Any]]) -> None:
        self._functions: dict[str, tuple[Callable[..., Any], type[BaseModel]]] = {}
        tools = []
        for function in functions:
            name = getattr(function, "__name__", "")
            if not name.isidentifier() or name in self._functions:
                raise ConfigError((f"Two functions are called {name}, or one has no name: give each a name.",))
            model = _arguments_of(name, function)
            self._functions[name] = (function, model)
            tools.append(Tool(name, inspect.getdoc(function) or "", _schema_of(name, model)))
        self._tools = tuple(tools)

    @property
    def name(self) -> str:
        return "python"

    @property
    def keeps_names(self) -> bool:
        return True

    @property
    def tools(self) -> tuple[Tool, ...]:
        return self._tools

    async def call(self, name: str, arguments: JSONObject) -> ToolResult:
        function, model = self._functions[name]
        try:
            checked = model.model_validate(arguments)
        except ValidationError as error:
            return ToolResult.told(_wrong(error), CallOutcome.BAD_ARGUMENTS)
        given = {field: getattr(checked, field) for field in checked.model_fields_set}
        try:
            if inspect.iscoroutinefunction(function):
                returned = await function(**given)
            else:
                returned = await asyncio.to_thread(function, **given)
            return ToolResult(_parts_of(returned))
        except Exception as error:  # the function is the user's, its errors are for the model
            logger.warning("the function %s failed", name, exc_info=error)
            return ToolResult.told(f"{name} failed: {type(error).__name__}: {error}", CallOutcome.TOOL_ERROR)


def _arguments_of(name: str, function: Callable[..., Any]) -> type[BaseModel]:
    """A model with the arguments as fields."""
    fields: dict[str, Any] = {}
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in _KINDS or parameter.name.startswith("_"):
            raise ConfigError((f"`{parameter}` of {name} cannot be given by name. Take it out of the signature.",))
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    try:
        return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
    except (PydanticUserError, NameError) as error:
        raise ConfigError((f"The arguments of {name} have no JSON schema: {error}",)) from error


def _schema_of(name: str, model: type[BaseModel]) -> JSONObject:
    try:
        schema = model.model_json_schema()
    except PydanticUserError as error:
        raise ConfigError((f"The arguments of {name} have no JSON schema: {error}",)) from error
    return {key: value for key, value in schema.items() if key != "title"}


def _wrong(error: ValidationError) -> str:
    """What is wrong with the arguments, for the model."""
    problems = (f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors())
    return "The arguments do not fit. " + "; ".join(problems)


def _parts_of(returned: Any) -> tuple[Part, ...]:
    if isinstance(returned, str):
        return (TextPart(returned, is_data=True),)
    parts = returned if isinstance(returned, tuple) and returned else (returned,)
    if all(isinstance(part, _PARTS) for part in parts):
        return parts
    return (TextPart(pydantic_core.to_json(returned).decode(), is_data=True),)
