"""`periscope config`: what is in effect and why, whether a file can be used, and the schema of such files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from periscope.cli.exits import CommandFailed, ExitCode, complain, exits
from periscope.cli.options import ConfigFile, DefaultModel, Host, Json, Port, VisionModel, load_config, print_json
from periscope.core.amounts import counted
from periscope.errors import ConfigError

if TYPE_CHECKING:
    from periscope.config import ModelConfig

app = typer.Typer(help="Show, check or begin the configuration.", no_args_is_help=True)

_HEADINGS = ("KEY", "VALUE", "SOURCE")
#: Wider values (a prompt template) push their source to the right instead of everybody's.
_MAX_COLUMN = 48


@app.command()
@exits()
def show(
    *,
    config: ConfigFile = None,
    host: Host = None,
    port: Port = None,
    model: DefaultModel = None,
    vision_model: VisionModel = None,
    as_json: Json = False,
) -> None:
    """Print every setting in effect and where its value comes from."""
    from periscope.config import describe

    loaded = load_config(config, host=host, port=port, model=model, vision_model=vision_model)
    settings = [*_with_authors_sampling(describe(loaded), loaded.models)]
    if as_json:
        rows = [{"key": key, "value": value, "source": source} for key, value, source in settings]
        print_json({"path": str(loaded.path), "settings": rows})
        return
    for line in table([_HEADINGS, *((key, _shown(value), source) for key, value, source in settings)]):
        typer.echo(line)


@app.command()
@exits()
def validate(
    file: Annotated[Path | None, typer.Argument(help="File to check; the one `serve` would use if left out.")] = None,
    *,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Check a models.yaml: exit 0 when it can be used, 78 with every problem when it cannot.

    A model's folder that is not there is a warning: the rest can be served, and its disk may be away for now.
    """
    from periscope.config import missing_folders

    if file is not None and config is not None and file != config:
        raise CommandFailed(f"Two files are named, {file} and {config}: name one.", ExitCode.USAGE)
    file = file or config
    try:
        loaded = load_config(file)
    except ConfigError as error:
        if as_json:
            print_json({"path": file and str(file), "valid": False, "problems": error.problems, "warnings": []})
        raise
    warnings = list(missing_folders(loaded.models, loaded.sources))
    for warning in warnings:
        complain(f"warning: {warning}")
    if as_json:
        print_json({"path": str(file or loaded.path), "valid": True, "problems": [], "warnings": warnings})
        return
    typer.echo(f"{file or loaded.path} is valid: {counted(len(loaded.models), 'model')}")


@app.command()
def schema() -> None:
    """Print the JSON schema of models.yaml."""
    from periscope.config import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
@exits()
def init(
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="File to write; your own models.yaml if left out.",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Choose for a Mac with this much, e.g. 32GB, as memory is sold: in powers of 1024.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the file; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Write a models.yaml with the pairs of models that fit this machine's memory, and the reasons in its comments."""
    from periscope.cli.config_init import write_starter

    write_starter(output, memory, force=force, dry_run=dry_run, as_json=as_json)


def _with_authors_sampling(
    settings: Iterable[tuple[str, Any, str]], models: Sequence[ModelConfig]
) -> Iterator[tuple[str, Any, str]]:
    """The settings, where models.yaml leaves sampling open with what the files of a model on this disk say."""
    from periscope.core import ModelKind
    from periscope.engine.loading.generation_config import GENERATION_CONFIG
    from periscope.wiring import peek_files

    authors = {
        f"models[{index}].params.{name}": value
        for index, model in enumerate(models)
        if model.kind is ModelKind.TEXT and model.remote is None
        for name, value in asdict(peek_files(model)[1].sampling).items()
    }
    for key, value, source in settings:
        told = authors.get(key)
        yield (key, value, source) if value is not None or told is None else (key, told, GENERATION_CONFIG)


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Pure: rows as lines with aligned columns; plain, so that it pipes and greps."""
    widths = [max(min(len(cell), _MAX_COLUMN) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _shown(value: Any) -> str:
    """A value as it would stand in the file, on one line."""
    return value if isinstance(value, str) and value and value.isprintable() else json.dumps(value, default=str)
