"""Lists all settings, each with its value and its source. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from periscope.config.keys import Loc, dotted, leaves
from periscope.config.load import Config

_REDACTED = "********"


def describe(config: Config) -> list[tuple[str, Any, str]]:
    """Every setting as (key, value, source), in the order of the file; the API key is never shown."""
    return [
        (key, _REDACTED if key == "server.api_key" and value is not None else value, config.sources[key])
        for key, value in _values(config)
    ]


def _values(config: Config) -> Iterator[tuple[str, Any]]:
    yield "idle_unload_secs", config.idle_unload_s
    yield "captioner_share", config.captioner_share
    sections: list[tuple[Loc, Any]] = [(("server",), config.server), (("memory",), config.memory)]
    sections += [(("caption_cache",), config.caption_cache), (("log",), config.log)]
    sections += [(("models", index), model) for index, model in enumerate(config.models)]
    for at, section in sections:
        for loc, value in leaves(section):
            yield dotted((*at, *loc)), value
