"""What the configuration says about itself: each value with its source, and the settings without effect. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from periscope.config.load import DEFAULT_SOURCE, Config
from periscope.config.schema import Loc, dotted, leaves, settings

#: Keys that are read and checked while no room acts on them. A room that starts to act on one takes it out here and in
#: the comments of models.yaml.
NOT_YET_ACTED_ON = (
    "idle_unload_secs",
    "server.limits.max_waiting",
    "server.limits.wait_timeout_s",
    "memory.budget",
    "models[].pin",
    "models[].ttl",
)
_REDACTED = "********"


def describe(config: Config) -> list[tuple[str, Any, str]]:
    """Every setting as (key, value, source), in the order of the file; the API key is never shown."""
    return [
        (key, _REDACTED if key == "server.api_key" and value is not None else value, config.sources[key])
        for key, value in _values(config)
    ]


def warnings(config: Config) -> tuple[str, ...]:
    """One line for each setting that somebody changed and that has no effect yet."""
    defaults = {key: field.default for key, field in settings()}
    return tuple(
        f"{config.sources[key]}: {key} is read and checked, but has no effect in this version"
        for key, value in _values(config)
        if (plain := re.sub(r"\[\d+\]", "[]", key)) in NOT_YET_ACTED_ON
        and config.sources[key] != DEFAULT_SOURCE
        and value != defaults[plain]
    )


def _values(config: Config) -> Iterator[tuple[str, Any]]:
    yield "idle_unload_secs", config.idle_unload_s
    yield "captioner_share", config.captioner_share
    sections: list[tuple[Loc, Any]] = [(("server",), config.server), (("memory",), config.memory)]
    sections += [(("models", index), model) for index, model in enumerate(config.models)]
    for at, section in sections:
        for loc, value in leaves(section):
            yield dotted((*at, *loc)), value
