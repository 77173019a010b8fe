"""LookTool: the server's tool by which a text model looks at an image of the request again. Event loop only."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any, Final

from periscope.core import CallOutcome, Tell, TextPart, Tool, ToolResult
from periscope.vision.looking import Look, Looking
from periscope.vision.regions import Region

_NAME: Final = "look"
#: Of the names of images that a model is told which has named another one.
_MAX_TOLD: Final = 20
_DESCRIPTION: Final = (
    "Look at an image again to answer one question about it. Use it only if the text that stands for the image does "
    "not tell what you need."
)
#: No image of the conversation is named here: tools begin the prompt, which must be the same in every turn.
_PARAMETERS: Final = {
    "type": "object",
    "properties": {
        "image": {"type": "string", "description": "Its name, such as image 2 or document 1, page 3."},
        "question": {"type": "string", "description": "What to find out."},
        "region": {
            "type": "array",
            "items": {"type": "number"},
            "description": "Part to look at: [left, top, right, bottom] in percent. Default: all of it.",
        },
    },
    "required": ["image", "question"],
}


def look_tools(looking: Looking, taken: Collection[str], max_looks: int) -> tuple[LookTool, ...]:
    """The tool for a request whose client asks for tools of these names; none if there are no images to look at."""
    return (LookTool(looking, _free_name(taken), max_looks),) if looking.images else ()


def _free_name(taken: Collection[str]) -> str:
    """Pure: `look`, or where a tool of the client has that name `look_2` and so on, the same in every turn."""
    name, number = _NAME, 1
    while name in taken:
        number += 1
        name = f"{_NAME}_{number}"
    return name


class LookTool:
    """A `ServerTool` over the images that a request keeps.

    Args:
        name: none of the client's tools has it.
    """

    def __init__(self, looking: Looking, name: str, max_calls: int) -> None:
        self._looking = looking
        self._max_calls = max_calls
        self._tool = Tool(name, _DESCRIPTION, _PARAMETERS)

    @property
    def tool(self) -> Tool:
        return self._tool

    @property
    def max_calls(self) -> int:
        return self._max_calls

    @property
    def is_shown(self) -> bool:
        return False

    @property
    def needs_approval(self) -> bool:
        return False

    async def call(self, arguments: str, tell: Tell) -> ToolResult:
        """The block of the image, or what is wrong with the call.

        Raises:
            ServerStopping: nothing new is taken.
        """
        try:
            look = _read(arguments, self._looking.images)
        except ValueError as error:
            return ToolResult.told(f"Nothing was looked at: {error}", CallOutcome.BAD_ARGUMENTS)
        return ToolResult((TextPart(await self._looking.look(look, tell), is_data=True),))


def _read(arguments: str, images: tuple[str, ...]) -> Look:
    """Pure: the look that a call's arguments ask for.

    Raises:
        ValueError: says what is wrong, for the model.
    """
    try:
        told = json.loads(arguments)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise ValueError("the arguments are not a JSON object.")  # noqa: TRY004 - one kind of error for the model
    question = told.get("question") or ""
    if not isinstance(question, str):
        raise ValueError("`question` must be a text.")  # noqa: TRY004 - as above
    return Look(_image(told.get("image"), images), question, _region(told.get("region")))


def _image(told: Any, images: tuple[str, ...]) -> str:
    """The name of an image; its number alone will do."""
    name = " ".join(str(told).lower().split())
    name = f"image {name}" if name.isdecimal() else name
    if name not in images:
        raise ValueError(f"`image` must be one of {', '.join(images[:_MAX_TOLD])}.")
    return name


def _region(told: Any) -> Region | None:
    if told is None or told == []:
        return None
    is_list = isinstance(told, list) and len(told) == 4 and all(isinstance(each, (int, float)) for each in told)
    if not is_list or not (0 <= told[0] < told[2] <= 100 and 0 <= told[1] < told[3] <= 100):
        raise ValueError(
            "`region` must be [left, top, right, bottom] in percent, from 0 to 100, left before right and top before "
            "bottom."
        )
    left, top, right, bottom = told
    return Region(math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
