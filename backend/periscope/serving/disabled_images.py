"""Images sent to a model whose vision mode is disabled: the refusal, or the placeholder. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from periscope.core import ImagePart, Message, Role, TextPart
from periscope.errors import ImageRejected
from periscope.serving.models import DisabledImages, ServedModel

PLACEHOLDER = "[An image was here, which this model can not see. Do not guess what it showed.]"


def without_images(messages: Sequence[Message], model: ServedModel) -> tuple[Message, ...]:
    """The messages with placeholders where the model's setting allows it.

    Raises:
        ImageRejected: an image may not be replaced; names it, the model and the fix.
    """
    last_user = max((i for i, message in enumerate(messages) if message.role is Role.USER), default=-1)
    for i, message in enumerate(messages):
        replaceable = model.disabled_images is DisabledImages.PLACEHOLDER and (
            i < last_user or message.role is Role.TOOL
        )
        if message.images and not replaceable:
            raise ImageRejected(
                f"Model {model.name} takes no images: its vision is disabled. Set `capabilities.vision_mode: proxy` "
                "for it in models.yaml, with a `vision_proxy`, or choose a model whose input_modalities hold image.",
                param=message.images[0].param,
            )
    return tuple(
        replace(message, parts=tuple(TextPart(PLACEHOLDER) if isinstance(p, ImagePart) else p for p in message.parts))
        for message in messages
    )
