"""`periscope ls`, `show` and `rm`: the models of models.yaml and of the hub's cache, as they lie on this disk."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from periscope.cli.config import table
from periscope.cli.exits import CommandFailed, ExitCode, complain, exits
from periscope.cli.options import ConfigFile, Json, ModelName, load_config, print_json
from periscope.core.amounts import size

if TYPE_CHECKING:
    from periscope.config.named import NamedModel
    from periscope.core import JSONObject
    from periscope.hub import CachedModel

_HEADINGS = ("NAME", "KIND", "MODEL", "SIZE", "REVISION", "STATE")
_SHORT_COMMIT = 12


@exits()
def ls(*, config: ConfigFile = None, as_json: Json = False) -> None:
    """List the configured models and whether they are on this disk, then what else the cache holds."""
    from periscope.config.named import named
    from periscope.hub import Hub, cached_models

    cached = {model.hub_id: model for model in cached_models()}
    models = [named(entry) for entry in load_config(config).models]
    rows = [_row(model, cached.get(model.hub_id or "")) for model in models]
    others = [_other(model) for hub_id, model in cached.items() if hub_id not in {each.hub_id for each in models}]
    if as_json:
        print_json({"cache": str(Hub().folder), "models": rows, "others": others})
        return
    for line in table([_HEADINGS, *(_cells(row) for row in (*rows, *others))]):
        typer.echo(line)


@exits()
def show(model: ModelName, *, config: ConfigFile = None, as_json: Json = False) -> None:
    """Show what a model is: its files, size, architecture, context, quantisation and sight.

    Of one that is not on this disk, or not all of it, what models.yaml says; then exit code 4, and on stderr how to get
    it.
    """
    from periscope.config.named import find_named
    from periscope.hub import cached_models

    found = find_named(load_config(config), model)
    cached = next((each for each in cached_models() if each.hub_id == found.hub_id), None)
    row = _row(found, cached)
    is_here = row["state"] == "on_disk"
    files = _files(Path(row["path"])) if is_here else []
    if is_here:
        row["size_bytes"] = sum(num_bytes for _, num_bytes in files)
    facts = row | _setting_facts(found) | _architecture(Path(row["path"]) if is_here else None, found)
    if as_json:
        print_json({**facts, "files": [{"name": name, "size_bytes": num_bytes} for name, num_bytes in files]})
    else:
        _print_facts(facts, files)
    if not is_here and row["state"] != "remote":
        how = f"Fetch it with `periscope pull {model}`." if found.hub_id else "Check `local_path` in models.yaml."
        raise CommandFailed(
            f"{found.hub_id or found.folder} is not on this disk, or not all of it. {how}", ExitCode.UNKNOWN_MODEL
        )


def _print_facts(facts: JSONObject, files: list[tuple[str, int]]) -> None:
    rows: list[tuple[str, ...]] = [(key, _fact(key, value)) for key, value in facts.items() if value is not None]
    rows += [("file", f"{name}  {size(num_bytes)}") for name, num_bytes in files]
    for line in table(rows):
        typer.echo(line)


@exits()
def rm(
    model: ModelName,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: ConfigFile = None,
) -> None:
    """Remove a model from the cache, with all its revisions."""
    from periscope.config.named import find_named
    from periscope.hub import cached_models, remove_model

    found = find_named(load_config(config), model)
    if found.hub_id is None:
        raise CommandFailed(f"{found.why_kept}, so it is not removed.")
    cached = next((each for each in cached_models() if each.hub_id == found.hub_id), None)
    if cached is not None and not yes:
        _ask(f"Remove {found.hub_id} ({size(cached.size_bytes)}), for whatever program fetched it?")
    typer.echo(f"Removed {found.hub_id}: {size(remove_model(found.hub_id))} are free again.")


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise CommandFailed("Nobody is there to ask: say --yes to remove it.", ExitCode.USAGE)
    if not typer.confirm(question, err=True):
        complain("Nothing was removed.")
        raise typer.Exit(ExitCode.FAILURE)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where all of a model's files are; None = some are missing."""

    folder: Path | None
    commit: str | None = None


def _place(model: NamedModel) -> _Place:
    from periscope.hub import complete_snapshot

    if model.hub_id is None:
        return _Place(model.folder if model.folder is not None and model.folder.is_dir() else None)
    folder = complete_snapshot(model.hub_id, model.revision)
    return _Place(folder, folder.name if folder else None)


def _files(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(file.relative_to(folder)), file.stat().st_size) for file in folder.rglob("*") if file.is_file())


def _row(model: NamedModel, cached: CachedModel | None) -> dict[str, Any]:
    place, remote = _place(model), None if model.entry is None else model.entry.remote
    num_bytes = cached.size_bytes if cached else 0
    if model.hub_id is None and place.folder is not None:
        num_bytes = sum(each for _, each in _files(place.folder))
    return {
        "name": model.name,
        "kind": None if model.entry is None else model.entry.kind.value,
        "hub_id": model.hub_id,
        "path": str(place.folder or model.folder or "") or None,
        "revision": model.revision,
        "commit": place.commit,
        "size_bytes": num_bytes,
        "state": "remote" if remote else "on_disk" if place.folder else "partial" if num_bytes else "missing",
        **({"url": remote.base_url, "model": remote.model} if remote else {}),
    }


def _other(model: CachedModel) -> dict[str, Any]:
    from periscope.hub import complete_snapshot

    folder = next(filter(None, (complete_snapshot(model.hub_id, commit) for commit in model.commits)), None)
    return {
        "name": None,
        "kind": None,
        "hub_id": model.hub_id,
        "path": None if folder is None else str(folder),
        "revision": None,
        "commit": None if folder is None else folder.name,
        "size_bytes": model.size_bytes,
        "state": "on_disk" if folder else "partial",
    }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    revision = row["revision"] or (row["commit"] or "")[:_SHORT_COMMIT]
    num_bytes = size(row["size_bytes"]) if row["size_bytes"] else "-"
    return (
        row["name"] or "-",
        row["kind"] or "-",
        row["hub_id"] or row["path"] or f"{row['model']} at {row['url']}",
        num_bytes,
        revision or "-",
        row["state"].replace("_", " "),
    )


def _setting_facts(model: NamedModel) -> JSONObject:
    """What models.yaml says of it, whether its files are here or not."""
    from periscope.config.named import captioner_name

    entry = model.entry
    if entry is None:
        return {"aliases": None, "vision_mode": None, "captioner": None}
    return {
        "aliases": list(entry.aliases),
        "vision_mode": entry.capabilities.vision_mode.value,
        "captioner": captioner_name(entry),
    }


def _architecture(folder: Path | None, model: NamedModel) -> JSONObject:
    """What its files say; without them the context that models.yaml allows is all that is known."""
    from periscope.engine.loading.loader import context_length_of, has_vision, read_model_config

    context_length = model.entry.params.context_length if model.entry else None
    if folder is None:
        unknown = dict.fromkeys(("architecture", "model_type", "context_length", "quantization", "vision"))
        return {**unknown, "context_length": context_length}
    config = read_model_config(folder)
    architectures = config.get("architectures")
    quantization = config.get("quantization")
    known = ("bits", "group_size", "mode")
    return {
        "architecture": architectures[0] if isinstance(architectures, list) and architectures else None,
        "model_type": config.get("model_type"),
        "context_length": context_length_of(config, context_length),
        "quantization": {key: quantization[key] for key in known if key in quantization}
        if isinstance(quantization, dict)
        else None,
        "vision": has_vision(config),
    }


def _fact(key: str, value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int() if key == "size_bytes":
            return size(value)
        case list():
            return ", ".join(map(str, value)) or "-"
        case dict():
            return ", ".join(f"{name} {each}" for name, each in value.items())
        case _:
            return str(value)
