"""`periscope menubar`: the server in the menubar, by SwiftBar or by an app of Periscope's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from periscope.cli.exits import exits
from periscope.cli.options import ConfigFile, Json, Url

app = typer.Typer(help="Show the server in the menubar, with SwiftBar or without.", no_args_is_help=True)


@app.command()
@exits()
def install(
    ctx: typer.Context,
    *,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="DIR", help="SwiftBar's plugin folder; the set one if left out."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plugin; write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Write the plugin that has SwiftBar show the server; again after the program has moved."""
    from periscope.cli.menubar_verbs import install_plugin

    install_plugin(ctx, folder, dry_run=dry_run, as_json=as_json)


@app.command()
@exits()
def render(
    ctx: typer.Context,
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with each change, as SwiftBar wants it.")] = False,
    url: Url = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Print the menu as SwiftBar reads it."""
    from periscope.cli.menubar_verbs import print_menu

    print_menu(ctx, url, config, follow=follow, as_json=as_json)


@app.command()
@exits()
def run(ctx: typer.Context, *, url: Url = None, config: ConfigFile = None) -> None:
    """Show the server in the menubar without SwiftBar, until it is quit; needs the extra `menubar`, on a Mac."""
    from periscope.cli.menubar_verbs import run_app

    run_app(ctx, url, config)
