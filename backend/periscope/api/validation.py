"""Checks bodies against wire models, and words pydantic's errors for clients, with the path in the body. Pure."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from periscope.api.wording import clip, kind_of
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Wire(BaseModel):
    """Base of wire models: unknown keys are kept apart, and no type is converted (`"0.5"` is no number).

    What checks a body is built for the first body of its model (at most 20 ms, for chats). Of most models nothing is
    ever built, because they are parts of others.
    """

    model_config = ConfigDict(extra="allow", strict=True, defer_build=True)


class Command(Wire):
    """Base of the bodies of Periscope's own commands: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid")


WireT = TypeVar("WireT", bound=Wire)

#: Large bodies are checked in threads, and not every version of pydantic takes care that one builds at a time. Nothing
#: is checked under it: whoever waits for it, the event loop perhaps, waits for some 20 ms at most.
_building = threading.Lock()

#: The type of a custom error whose message is the expected thing itself.
EXPECTED = "expected"


def as_whole(value: Any) -> Any:
    """An integral float as an integer: clients whose language has no integers write 10 as `10.0`."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


EffortName: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


def _effort(value: Any) -> Any:
    if value in get_args(EffortName):
        return value
    raise PydanticCustomError(EXPECTED, "`none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`")


Name = Annotated[str, Field(min_length=1)]
Effort = Annotated[str, BeforeValidator(_effort, json_schema_input_type=EffortName)]
Whole = Annotated[int, BeforeValidator(as_whole)]

_EXPECTED_BY_TYPE = {
    "string_type": "a string",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "string_too_short": "a string that is not empty",
    "too_short": "a list that is not empty",
}


def validate(model: type[WireT], body: Any, path: str = "") -> WireT:
    """The body as a wire model.

    Args:
        path: where it stands in the request, if it is a part of it.

    Raises:
        InvalidRequest: names the first wrong field, what it should be and what came.
    """
    if not model.__pydantic_complete__:
        with _building:
            model.model_rebuild()
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise _told(error.errors(include_url=False), model, path) from None


def json_path(keys: Sequence[str | int]) -> str:
    """`messages[0].content`, from `("messages", 0, "content")`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{clip(key)}" for key in keys).removeprefix(".")


def _told(findings: list[ErrorDetails], model: type[Wire], path: str) -> InvalidRequest:
    first = findings[0]
    param = ".".join(filter(None, (path, json_path(first["loc"])))) or None
    place = f"`{param}`" if param else "The request body"
    if first["type"] == "missing":
        message = f"{place} is missing."
    elif first["type"] == "extra_forbidden":
        message = f"{place} is not known here. Known fields: {', '.join(model.model_fields) or 'none'}."
    else:
        expected = first["msg"] if first["type"] == EXPECTED else _EXPECTED_BY_TYPE.get(first["type"])
        message = (
            f"{place} must be {expected}, got {kind_of(first['input'])}."
            if expected
            else f"{place} is wrong: {clip(first['msg'])}."
        )
    more = f" (And {len(findings) - 1} more.)" if len(findings) > 1 else ""
    return InvalidRequest(message + more, param=param)
