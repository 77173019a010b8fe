"""Files that an entry of `models` names by absolute paths, and that are not there. Looks at the disk, reads nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from periscope.config.keys import Loc
from periscope.config.params_schema import is_template
from periscope.config.schema import ModelConfig, ModelEntry
from periscope.demo import EMBEDDED_MODELS


def missing_files(entry: ModelEntry) -> Iterator[tuple[Loc, str]]:
    """The keys of this entry that name a missing file, each with what is wrong."""
    ca_file, template = entry.remote and entry.remote.ca_file, entry.params.chat_template
    if ca_file and not Path(ca_file).is_file():
        yield ("remote", "ca_file"), f"names no file: {ca_file}"
    if template is not None and not is_template(template) and not Path(template).is_file():
        yield ("params", "chat_template"), f"is no template and names no file: {template}"
    for number, text in enumerate(entry.warm):
        if text.startswith("@") and not Path(text[1:]).is_file():
            yield ("warm", number), f"names no file: {text[1:]}"


def missing_folders(models: Sequence[ModelConfig], sources: Mapping[str, str]) -> Iterator[str]:
    """Warnings of models whose folder is not there, each with its line; their disk may be away for now.

    Args:
        sources: where each setting stands, as in `Config`.
    """
    for index, model in enumerate(models):
        folder, key = model.local_path, f"models[{index}].local_path"
        is_there = folder is None or folder in EMBEDDED_MODELS or os.path.isdir(folder)  # noqa: PTH112 - see resolve
        if not is_there:
            yield f"{sources[key]}: {key} names no folder: {folder}; {model.name} cannot be loaded until there is one"
