"""Files that an entry of `models` names by absolute paths, and that are not there. Looks at the disk, reads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from periscope.config.keys import Loc
from periscope.config.params_schema import is_template
from periscope.config.schema import ModelEntry


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
