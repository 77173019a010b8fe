"""Which path of Periscope's program goes into the plist: one that an upgrade leaves where it is.

uv, pipx and Homebrew replace the environment at an upgrade and keep a link to it. A plist that names the environment,
whose path often has a version in it, stops working then.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from periscope.service.agent import ServiceFailed
from periscope.service.machine import Machine

_NAME = "periscope"
#: `uvx` and `uv run --with` make environments that uv removes when it likes.
_PASSING = re.compile(r"/uv/(archive|builds|environments)-v\d+/")
_VERSIONED = re.compile(r"/Cellar/|/python@?\d|/\d+\.\d+(\.\d+)?/")


def stable_program(machine: Machine, asked: Path | None = None) -> Path:
    """The program for the plist: `asked`, else a link that leads to the program that runs now, else that program.

    Raises:
        ServiceFailed: there is none that will still be there tomorrow.
    """
    if asked is not None:
        program = Path(os.path.abspath(asked.expanduser()))  # noqa: PTH100 - links stay links
        if not os.access(program, os.X_OK) or program.is_dir():
            raise ServiceFailed(f"{program} is not a program that can be run. Name another with --program.")
        return program
    running = _running(machine)
    if running is None:
        raise ServiceFailed(
            "Periscope's program was not found beside its Python. Install it with `uv tool install mlx-periscope`, "
            "or name it with --program."
        )
    program = next((link for link in _links(machine) if _leads_to(link, running)), running)
    if _PASSING.search(str(program)):
        raise ServiceFailed(
            f"{program} belongs to a temporary environment, which uv removes. "
            "Install Periscope with `uv tool install mlx-periscope` first."
        )
    return program


def is_versioned(program: Path) -> bool:
    """Pure: whether the path looks as if an upgrade would change it."""
    return _VERSIONED.search(str(program)) is not None


def _running(machine: Machine) -> Path | None:
    """The program that was called, or the one beside the interpreter (`python -m periscope`)."""
    called = Path(machine.invoked)
    if (
        called.name == _NAME
        and not called.is_absolute()
        and (found := shutil.which(machine.invoked, path=_path(machine)))
    ):
        called = Path(found)
    for candidate in (called, machine.interpreter.parent / _NAME):
        if candidate.name == _NAME and candidate.is_file():
            return Path(os.path.abspath(candidate))  # noqa: PTH100 - links stay links
    return None


def _links(machine: Machine) -> Iterator[Path]:
    """Where installers put their links, most stable first, then what the shell finds."""
    yield machine.home / ".local/bin" / _NAME
    for prefix in ("/opt/homebrew", "/usr/local"):
        yield Path(prefix, "opt", _NAME, "bin", _NAME)
        yield Path(prefix, "bin", _NAME)
    if (found := shutil.which(_NAME, path=_path(machine))) is not None:
        yield Path(os.path.abspath(found))  # noqa: PTH100 - links stay links


def _path(machine: Machine) -> str:
    return machine.env.get("PATH", "")


def _leads_to(link: Path, program: Path) -> bool:
    try:
        return link.samefile(program)
    except OSError:
        return False
