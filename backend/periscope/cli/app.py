"""The commands and their order in `periscope --help`."""

from __future__ import annotations

from typing import Annotated

import typer

from periscope.cli import ask, bench, caption, captions, config, models, pull, serve, service, version

app = typer.Typer(
    help="Periscope: a local inference server that gives sight to text-only models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve.serve)
app.command("ask")(ask.ask)
app.command("caption")(caption.caption)
app.command("pull")(pull.pull)
app.command("ls")(models.ls)
app.command("show")(models.show)
app.command("rm")(models.rm)
app.add_typer(captions.app, name="captions")
app.add_typer(config.app, name="config")
app.add_typer(bench.app, name="bench")
app.add_typer(service.app, name="service")
app.command("version")(version.version)


@app.callback()
def periscope(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=version.print_short, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """What stands before every command."""
