"""What a person types in `periscope chat`: commands, messages, and files that were pasted or dropped. Pure."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: A path as terminals paste it: in quotes, with backslashes before spaces, or as a file: address; or just a name.
_PATH = re.compile(
    r"""'(?P<single>(?:file://|/|~/|\./|\.\./)[^'\n]+)'
      | "(?P<double>(?:file://|/|~/|\./|\.\./)[^"\n]+)"
      | (?<!\S)(?P<bare>(?:file://|/|~/|\./|\.\./)(?:\\.|[^\s\\])+)
      | (?<!\S)(?P<name>\w[\w./-]*\.\w+)(?![\w/])""",
    re.VERBOSE,
)
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Command:
    """A line that begins with a slash: `/name argument`."""

    name: str
    argument: str


@dataclass(frozen=True, slots=True)
class Said:
    """Something for the model: text, pictures or both."""

    text: str
    files: tuple[Path, ...]


def read_input(line: str, is_file: Callable[[Path], bool] = Path.is_file) -> Command | Said:
    """A line as it is meant. A path counts as a file only if there is one, and it looks like a picture or a PDF."""
    line = line.strip()
    name, _, argument = line.partition(" ")
    if name.startswith("/") and "/" not in name[1:] and name[1:].isalpha() and not is_file(Path(name)):
        return Command(name[1:], argument.strip())
    files: list[Path] = []

    def taken(match: re.Match[str]) -> str:
        path = path_of(match[match.lastgroup or 0])
        if not (_is_shown_to_models(path) and is_file(path)):
            return match[0]
        files.append(path)
        return ""

    text = _PATH.sub(taken, line)
    return Said(" ".join(text.split()) if files else line, tuple(files))


def path_of(pasted: str) -> Path:
    """A path without what terminals and file managers put around and into it."""
    pasted = pasted.strip()
    if len(pasted) > 1 and pasted[0] == pasted[-1] and pasted[0] in "'\"":
        pasted = pasted[1:-1]
    else:
        pasted = _ESCAPED.sub(r"\1", pasted)
    if pasted.startswith("file://"):
        pasted = unquote(urlsplit(pasted).path)
    return Path(pasted).expanduser()


def _is_shown_to_models(path: Path) -> bool:
    kind = mimetypes.guess_type(path.name)[0] or ""
    return kind.startswith("image/") or kind == "application/pdf"
