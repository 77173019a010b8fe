"""Fields of Anthropic's API that this server does not use: those that would change the answer are refused. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from periscope.api.anthropic.tools import is_hosted
from periscope.api.errors import UnsupportedParameter
from periscope.api.wording import clip

if TYPE_CHECKING:
    from periscope.api.anthropic.schema import PromptWire

#: field -> values, besides null, that ask for nothing. Each would have this server run something.
_REFUSED: Mapping[str, tuple[Any, ...]] = {"mcp_servers": ([],), "container": ({},)}
#: Fields that change no answer: who asks, who pays, what may be cached, and what may be dropped from long histories.
_WITHOUT_EFFECT = frozenset(
    {
        *("metadata", "service_tier", "inference_geo", "speed", "cache_control", "context_management", "diagnostics"),
        *("betas", "user_profile_id"),
    }
)


def refuse_unsupported(wire: PromptWire) -> None:
    """Refuse fields that are not supported.

    Raises:
        UnsupportedParameter: names the first such field.
    """
    extra = wire.model_extra or {}
    for name, neutral in _REFUSED.items():
        if (value := extra.get(name)) is not None and value not in neutral:
            raise UnsupportedParameter(f"`{name}` is not supported; leave it out.", param=name)


def unused_fields(wire: PromptWire) -> Iterator[str]:
    """The places of what is accepted and not used although it might matter, for a line in the log."""
    for name in wire.model_extra or {}:
        if name not in _REFUSED and name not in _WITHOUT_EFFECT:
            yield clip(name)
    for i, tool in enumerate(wire.tools or ()):
        if is_hosted(tool):
            yield f"tools[{i}] ({clip(tool.type or '')})"
