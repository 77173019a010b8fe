"""The command `periscope`: its options that stand before every command, over the table of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from periscope.cli.command_table import CommandTable

app = typer.Typer(
    cls=CommandTable,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # importing what draws boxes takes longer than all the rest of `--help`
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from periscope import __version__

        typer.echo(f"periscope {__version__}")
        raise typer.Exit


@app.callback()
def periscope(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Periscope: a local inference server that gives sight to text-only models."""
