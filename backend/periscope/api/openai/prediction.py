"""OpenAI's `prediction`, wire to core: a text that the answer is likely to repeat. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from periscope.api.content_parts import decode_content
from periscope.api.wording import kind_of
from periscope.core import TextPart
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.openai.schema import PredictionWire


def decode_prediction(wire: PredictionWire | None) -> str:
    """The predicted text; "" if there is none.

    Raises:
        InvalidRequest: it is of another type, or holds something other than text.
    """
    if wire is None:
        return ""
    if wire.type != "content":
        raise InvalidRequest(f"`prediction.type` must be 'content', got {kind_of(wire.type)}.", param="prediction.type")
    texts = []
    for index, part in enumerate(decode_content(wire.content, "prediction.content")):
        if not isinstance(part, TextPart):
            raise InvalidRequest(
                f"`prediction.content[{index}]` must be a text: an answer holds nothing else.",
                param=f"prediction.content[{index}]",
            )
        texts.append(part.text)
    return "".join(texts)
