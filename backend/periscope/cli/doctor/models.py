"""The configured models: on this disk, readable, small enough; and the reader of text in pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from periscope.cli.doctor.finding import Finding, Level
from periscope.config.named import captioner_name
from periscope.core import find_model
from periscope.core.amounts import size
from periscope.errors import ConfigError, FilesMissing, ModelLoadError

if TYPE_CHECKING:
    from periscope.config import Config, ModelConfig
    from periscope.core import Footprint

_FULL_DISK_ACCESS = (
    "Move it out of folders that macOS guards, or give the program Full Disk Access under Privacy & Security."
)


def look_at_models(
    config: Config, measure: Callable[[ModelConfig], Footprint], budget_bytes: int | None
) -> Iterator[Finding]:
    """One finding for each model that the default one or the start of the server needs; one for all the others.

    Args:
        measure: what a model takes; reads the headers of its files.
        budget_bytes: what all models together may take; None = unknown.
    """
    needed = {config.default_model.name, captioner_name(config.default_model)}
    needed |= {model.name for model in config.models if model.preload}
    models = [model for model in config.models if model.remote is None]
    others_missing: list[str] = []
    total_bytes = 0
    for model in models:
        finding, num_bytes = _look_at(model, measure, budget_bytes)
        if model.name in needed:
            total_bytes += num_bytes
        if model.name in needed or finding.level is Level.OK:
            yield finding
        else:
            others_missing.append(model.name)
    if others_missing:
        fix = "`periscope pull NAME` fetches one; `periscope show NAME` says what it is."
        yield Finding("models", Level.WARNING, f"not usable now: {', '.join(others_missing)}", fix)
    if budget_bytes is not None and total_bytes > budget_bytes:
        said = f"{size(total_bytes)} are needed at start, {size(budget_bytes)} may be taken: they would take turns"
        yield Finding(
            "models", Level.WARNING, said, "Choose smaller models: `periscope config init` lists pairs that fit."
        )


def look_at_reader(config: Config) -> Finding:
    """Whether text in pictures is read to the letter for the default model."""
    from periscope.vision.readers.find import INSTALL, ReaderKind, find_reader

    vision = config.default_model.capabilities.vision_proxy
    if captioner_name(config.default_model) is None or vision is None or ReaderKind(vision.reader) is ReaderKind.NONE:
        return Finding("reader", Level.SKIPPED, "the default model uses none")
    try:
        reader = find_reader(ReaderKind(vision.reader), vision.reader_languages)
    except ConfigError as error:
        return Finding("reader", Level.FAILURE, error.message, f"{INSTALL}, or set `reader: auto`")
    if reader is None:
        return Finding("reader", Level.WARNING, "none: text in pictures is described, not read", INSTALL)
    return Finding("reader", Level.OK, reader.name)


def look_at_captioner(config: Config) -> Finding:
    """Whether the default model can be shown pictures."""
    model = config.default_model
    name = captioner_name(model)
    if name is None:
        mode = model.capabilities.vision_mode.value
        fix = None if mode == "native" else "Set `vision_mode: proxy` and a captioner for it in models.yaml."
        level = Level.OK if mode == "native" else Level.WARNING
        return Finding("captioner", level, f"{model.name} has none (vision_mode: {mode})", fix)
    entry = find_model(config.models, name)
    where = f" at {entry.remote.base_url}" if entry is not None and entry.remote is not None else ""
    return Finding("captioner", Level.OK, f"{name}{where} for {model.name}")


def _look_at(
    model: ModelConfig, measure: Callable[[ModelConfig], Footprint], budget_bytes: int | None
) -> tuple[Finding, int]:
    """What is to be said of one model, and the bytes that it takes if it can be used."""
    check = f"model {model.name}"
    try:
        footprint = measure(model)
    except ModelLoadError as error:
        if isinstance(error, FilesMissing):  # under its own name it is pulled with its captioner and its draft model
            error = error.called(model.name)
        said, _, fix = error.message.partition(". ")  # one sentence says why, the next what to do
        return Finding(check, Level.FAILURE, said, fix or f"`periscope pull {model.name}` fetches it."), 0
    except OSError as error:
        said = f"cannot be read: {error.strerror} ({error.filename})"
        return Finding(check, Level.FAILURE, said, _FULL_DISK_ACCESS), 0
    said = f"{size(footprint.weights_bytes)} of weights and {size(footprint.reserve_bytes)} to work"
    num_bytes = footprint.total_bytes
    if budget_bytes is not None and num_bytes > budget_bytes:
        fix = "Choose a smaller one or a stronger quantisation, or raise `memory.budget`."
        return Finding(check, Level.FAILURE, f"{said}: more than the {size(budget_bytes)} there are", fix), 0
    return Finding(check, Level.OK, said), num_bytes
