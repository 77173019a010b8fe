"""A runtime of the command's own, for when no server runs: loads what the command needs and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from periscope.cli.exits import CommandFailed, ExitCode, code_of
from periscope.config import Config, ModelConfig
from periscope.core import DEFAULT_NAME, ModelKind, find_model, require_model
from periscope.errors import PeriscopeError

if TYPE_CHECKING:
    from periscope.runtime import Runtime
    from periscope.serving.service import ChatService


def text_model(config: Config, name: str | None) -> ModelConfig:
    """The text model of this name or alias, the default one without a name. Pure.

    Raises:
        ModelNotFound: no model is called so (exit code 4).
        CommandFailed: it is no text model (exit code 4).
    """
    other = find_model(config.models, name or DEFAULT_NAME, default=config.default_model)
    if other is not None and other.kind is not ModelKind.TEXT:
        does = "embeds texts" if other.kind is ModelKind.EMBEDDING else "describes pictures, for text models"
        raise CommandFailed(
            f"Model {other.name} only {does}. Name a text model, such as {config.default_model.name}.",
            ExitCode.UNKNOWN_MODEL,
        )
    text_models = [model for model in config.models if model.kind is ModelKind.TEXT]
    return require_model(text_models, name or DEFAULT_NAME, default=config.default_model)


def preloading(config: Config, names: set[str]) -> Config:
    """Pure: the same models, but exactly these are loaded at start."""
    models = tuple(model.model_copy(update={"preload": model.name in names}) for model in config.models)
    return dataclasses.replace(config, models=models)


@asynccontextmanager
async def service_of_our_own(config: Config, names: set[str], required: str) -> AsyncIterator[ChatService]:
    """A service whose models `names` were loaded side by side; their progress is shown on stderr.

    Raises:
        CommandFailed: `required` could not be loaded (exit code 4 if it is not on this disk).
    """
    from periscope.cli.progress import display_on, print_line, shown, stderr_console
    from periscope.cli.quick_imports import import_quickly
    from periscope.runtime import Runtime

    import_quickly(config)
    console = stderr_console()

    def tell(line: str, *, is_failure: bool) -> None:  # noqa: ARG001 - all lines look alike here
        print_line(console, line)

    runtime = Runtime(preloading(config, names))
    try:
        async with shown(runtime.bus, display_on(console, tell)):
            await runtime.start()
        if runtime.service.health().models[required] == "failed":  # the display has said why
            raise CommandFailed(f"Model {required} could not be loaded.", await _code_of_failure(runtime, required))
        yield runtime.service
    finally:
        await runtime.stop()


async def _code_of_failure(runtime: Runtime, name: str) -> ExitCode:
    """The exit code for a model whose load has just failed: it is refused at once, with the reason."""
    try:
        await runtime.control.load(name, wait=False)
    except PeriscopeError as error:
        return code_of(error)
    return ExitCode.FAILURE
