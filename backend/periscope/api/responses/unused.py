"""What a request to `/v1/responses` asks for in vain, for a line in the log. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from periscope.api.fields import noted_fields
from periscope.api.responses.fields import RESPONSES_FIELDS

if TYPE_CHECKING:
    from periscope.api.responses.schema import PromptWire


def unused_fields(wire: PromptWire) -> Iterator[str]:
    """The places of what is accepted and not used although it might matter."""
    yield from noted_fields(wire.model_extra, RESPONSES_FIELDS)
    if wire.reasoning is not None:
        yield from noted_fields(wire.reasoning.model_extra, RESPONSES_FIELDS, "reasoning.")
    if wire.text is not None:
        verbosity = {"verbosity": wire.text.verbosity}
        yield from noted_fields((wire.text.model_extra or {}) | verbosity, RESPONSES_FIELDS, "text.")
