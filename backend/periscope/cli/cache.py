"""`periscope cache`: what of earlier prompts is kept on disk, and the way to remove it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from periscope.cli.config import table
from periscope.cli.exits import CommandFailed, exits
from periscope.cli.options import ConfigFile, Json, load_config, print_json
from periscope.core.amounts import counted, size

if TYPE_CHECKING:
    from periscope.core import JSONObject

app = typer.Typer(help="Show or clear what of earlier prompts is kept on disk.", no_args_is_help=True)


@app.command()
@exits()
def stats(*, config: ConfigFile = None, as_json: Json = False) -> None:
    """Tell how many prompts are kept on disk, for how many models, and what they take."""
    from periscope.engine.batch.disk.files import SUFFIX, kept_files

    settings = load_config(config).prompt_cache
    files = kept_files(Path(settings.path or ""))
    whole = [file for file in files if file.path.suffix == SUFFIX]
    told: JSONObject = {
        "path": settings.path,
        "persist": settings.persist,
        "num_prompts": len(whole),
        "num_models": len({file.path.parent for file in whole}),
        "num_unusable": len(files) - len(whole),
        "num_bytes": sum(file.nbytes for file in files),
        "max_bytes": settings.max_bytes,
    }
    if as_json:
        print_json(told)
        return
    for line in table(list(_rows(told))):
        typer.echo(line)


def _rows(told: JSONObject) -> Iterator[tuple[str, str]]:
    yield "folder", f"{told['path']}{'' if told['persist'] else ' (off: prompt_cache.persist is false)'}"
    yield "prompts", f"{told['num_prompts']} of {told['num_models']} models, as they are loaded"
    if told["num_unusable"]:
        yield "unusable", f"{told['num_unusable']} files, being written or set aside"
    yield "size", f"{size(told['num_bytes'])} of {size(told['max_bytes'])}"


@app.command()
@exits()
def clear(*, config: ConfigFile = None, as_json: Json = False) -> None:
    """Remove all prompts that are kept on disk, of all models. Unload a model to drop what it has in memory, too."""
    from periscope.engine.batch.disk.files import clear as remove

    folder = Path(load_config(config).prompt_cache.path or "")
    try:
        num_files, num_bytes = remove(folder)
    except OSError as error:
        raise CommandFailed(f"{folder} cannot be cleared: {error}.") from None
    if as_json:
        print_json({"removed": num_files, "num_bytes": num_bytes})
    else:
        typer.echo(f"Removed {counted(num_files, 'prompt')}, {size(num_bytes)}.")
