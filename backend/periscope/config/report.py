"""Lists all settings, each with its value and its source. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from periscope.config.checks import is_loopback
from periscope.config.keys import Loc, dotted, leaves
from periscope.config.load import Config
from periscope.config.section import Section

_REDACTED = "********"


def describe(config: Config) -> list[tuple[str, Any, str]]:
    """Every setting as (key, value, source), in the order of the file; no key is ever shown."""
    return [(key, _shown(key, value), config.sources[key]) for key, value in _values(config)]


def with_models_of(running: Config, read: Config) -> tuple[Config, tuple[str, ...]]:
    """What a running server takes of a configuration that was read again, and the settings that need a restart. Pure.

    Its own API keys are taken, except that a server which others can reach does not give up its last one.
    """
    server = running.server
    if read.server.needs_key or is_loopback(server.host):
        server = server.model_copy(update={"api_key": read.server.api_key, "api_keys": read.server.api_keys})
    taken = replace(
        running,
        models=read.models,
        server=server,
        idle_unload_s=read.idle_unload_s,
        sources=read.sources,
        api_keys=read.api_keys,
        mcp_servers=read.mcp_servers,
    )
    new = dict(_values(read))
    return taken, tuple(key for key, value in _values(taken) if key in new and new[key] != value)


def _shown(key: str, value: Any) -> Any:
    if key == "server.api_key" and value is not None:
        return _REDACTED
    if key.startswith("mcp_servers") and key.rpartition(".")[2] in ("headers", "env"):
        return dict.fromkeys(value, _REDACTED)
    if isinstance(value, tuple):
        return tuple(each.model_dump(exclude_unset=True) if isinstance(each, Section) else each for each in value)
    return value


def _values(config: Config) -> Iterator[tuple[str, Any]]:
    yield "idle_unload_secs", config.idle_unload_s
    yield "captioner_share", config.captioner_share
    sections: list[tuple[Loc, Any]] = [(("server",), config.server), (("memory",), config.memory)]
    sections += [(("caption_cache",), config.caption_cache), (("responses",), config.responses), (("log",), config.log)]
    sections += [(("prompt_cache",), config.prompt_cache)]
    sections += [(("mcp_servers", index), server) for index, server in enumerate(config.mcp_servers)]
    sections += [(("models", index), model) for index, model in enumerate(config.models)]
    for at, section in sections:
        for loc, value in leaves(section):
            yield dotted((*at, *loc)), value
