"""What a request of Anthropic's asks for in vain, for a line in the log. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from periscope.api.anthropic.fields import MESSAGES_FIELDS
from periscope.api.anthropic.tools import is_hosted
from periscope.api.fields import noted_fields
from periscope.api.wording import clip

if TYPE_CHECKING:
    from periscope.api.anthropic.schema import PromptWire


def unused_fields(wire: PromptWire) -> Iterator[str]:
    """The places of what is accepted and not used although it might matter."""
    yield from noted_fields(wire.model_extra, MESSAGES_FIELDS)
    yield from left_out_tools(wire)


def left_out_tools(wire: PromptWire) -> Iterator[str]:
    """The places of tools that the client does not run."""
    for i, tool in enumerate(wire.tools or ()):
        if is_hosted(tool):
            yield f"tools[{i}] ({clip(tool.type or '')})"
