"""`periscope config init` at work: how much memory there is, which file is written, what comes next."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from periscope.cli.exits import CommandFailed, ExitCode, complain
from periscope.cli.options import print_json

if TYPE_CHECKING:
    from periscope.config.pairs import Pair


def write_starter(output: Path | None, memory: str | None, *, force: bool, dry_run: bool, as_json: bool) -> None:
    """Choose pairs, write the file unless it is a dry run, and say what to do next.

    Raises:
        CommandFailed: the file exists and may not be replaced, or cannot be written.
    """
    from periscope.config import fitting, starter_file, user_file

    memory_bytes, budget_bytes = _machine() if memory is None else _asked(memory)
    text = starter_file(memory_bytes, budget_bytes)
    pairs = fitting(budget_bytes)
    file = output or user_file(os.environ, cwd=Path.cwd(), home=Path.home())
    if not dry_run:
        _write(file, text, force=force)
    if as_json:
        told = {"path": None if dry_run else str(file), "memory_bytes": memory_bytes, "budget_bytes": budget_bytes}
        print_json({**told, "pairs": [_facts(pair) for pair in pairs], "text": text})
        return
    if dry_run:
        typer.echo(text, nl=False)
        return
    typer.echo(f"Wrote {file}.")
    if pairs:
        named = _option(file)
        typer.echo(f"Next: periscope pull {pairs[0].name}{named} && periscope serve{named}")
    else:
        complain("No real pair fits this machine: the file has the embedded demo pair.")


def _option(file: Path) -> str:
    """The option that names a file; empty if commands find it by themselves from here."""
    from periscope.config import find_file
    from periscope.errors import ConfigError

    try:
        found = find_file(None, os.environ, cwd=Path.cwd(), home=Path.home())
    except ConfigError:  # $PERISCOPE_CONFIG names one that is not there
        found = None
    if found is not None and found.samefile(file):
        return ""
    if found is not None:
        typer.echo(f"Commands that name no file read {found} here.")
    return f" --config {shlex.quote(str(file))}"


def _machine() -> tuple[int, int]:
    """Bytes of memory, and of them what models may take, as MLX says."""
    from periscope.engine.device.facts import device_facts

    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), device_facts().budget_bytes


def _asked(memory: str) -> tuple[int, int]:
    from periscope.config import estimated_budget, parse_bytes

    try:
        memory_bytes = parse_bytes(memory.upper().replace("GB", "GIB"))  # memory is sold in powers of 1024, called GB
    except ValueError as error:
        raise CommandFailed(f"--memory {memory}: {error}.", ExitCode.USAGE) from None
    return memory_bytes, estimated_budget(memory_bytes)


def _write(file: Path, text: str, *, force: bool) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise CommandFailed(
            f"{file} exists. --force replaces it, --output names another file, --dry-run prints the text."
        ) from None
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written: {error.strerror}. Name another with --output.") from None


def _facts(pair: Pair) -> dict[str, object]:
    return {
        "name": pair.name,
        "hf_id": pair.text.hf_id,
        "captioner": pair.captioner.hf_id,
        "total_bytes": pair.total_bytes,
        "why": pair.why,
    }
