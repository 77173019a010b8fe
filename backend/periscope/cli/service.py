"""`periscope service`: the server as a launchd agent, which starts at login and again after a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from periscope.cli.exits import exits
from periscope.cli.options import ConfigFile, Json

app = typer.Typer(help="Run the server as a launchd agent: at login, and again after a crash.", no_args_is_help=True)

DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Print what would be done; change nothing.")]
Program: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Periscope's program; a link that survives upgrades if left out.", show_default=False
    ),
]


@app.command()
@exits()
def install(
    ctx: typer.Context,
    *,
    config: ConfigFile = None,
    program: Program = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Write the agent's plist and have launchd start it, now and at every login. Again to renew it after an upgrade."""
    from periscope.cli import service_verbs

    service_verbs.install(ctx, config, program, dry_run=dry_run, as_json=as_json)


@app.command()
@exits()
def uninstall(ctx: typer.Context, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Stop the agent and remove its plist; models, settings and logs stay."""
    from periscope.cli.service_verbs import carry_out

    carry_out(ctx, "uninstall", dry_run=dry_run, as_json=as_json)


@app.command()
@exits()
def start(ctx: typer.Context, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Start the installed agent."""
    from periscope.cli.service_verbs import carry_out

    carry_out(ctx, "start", dry_run=dry_run, as_json=as_json)


@app.command()
@exits()
def stop(ctx: typer.Context, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Stop the agent until the next login, or until `start`; running requests get ten seconds to end."""
    from periscope.cli.service_verbs import carry_out

    carry_out(ctx, "stop", dry_run=dry_run, as_json=as_json)


@app.command()
@exits()
def restart(ctx: typer.Context, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Stop the agent and start it again, with its plist read anew if it has changed."""
    from periscope.cli.service_verbs import carry_out

    carry_out(ctx, "restart", dry_run=dry_run, as_json=as_json)


@app.command()
@exits()
def status(ctx: typer.Context, *, as_json: Json = False) -> None:
    """Show the agent's state: exit 0 while it runs, 3 while it does not."""
    from periscope.cli.service_verbs import show_status

    show_status(ctx, as_json=as_json)


@app.command()
@exits()
def logs(
    ctx: typer.Context,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of each file's last lines.")] = 50,
) -> None:
    """Print the ends of the agent's logs."""
    from periscope.cli.service_verbs import show_logs

    show_logs(ctx, follow=follow, num_lines=lines)


@app.command()
@exits()
def plist(ctx: typer.Context, *, config: ConfigFile = None, program: Program = None) -> None:
    """Print the plist that `install` would write; works on any system."""
    from periscope.cli.service_verbs import show_plist

    show_plist(ctx, config, program)
