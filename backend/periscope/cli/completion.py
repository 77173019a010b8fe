"""`periscope completion`: the script with which a shell completes the commands, their options and model names."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from periscope.cli import COMPLETION_VARIABLE
from periscope.cli.exits import exits
from periscope.cli.options import Json, print_json


class Shell(StrEnum):
    """Shells that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@exits()
def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell whose script is printed.", show_default=False)],
    *,
    as_json: Json = False,
) -> None:
    """Print a shell's completion script: source <(periscope completion bash), in ~/.bashrc or ~/.zshrc.

    For fish: periscope completion fish > ~/.config/fish/completions/periscope.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # public by its name alone

    script = get_completion_script(prog_name="periscope", complete_var=COMPLETION_VARIABLE, shell=shell.value)
    if as_json:
        print_json({"shell": shell.value, "script": script})
    else:
        typer.echo(script)
