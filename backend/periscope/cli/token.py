"""`periscope token`: the secret by which programs of this user talk to the server, as with its API key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from periscope.cli.exits import CommandFailed, complain, exits
from periscope.cli.options import ConfigFile, Json, load_config, print_json

if TYPE_CHECKING:
    from periscope.service import StateFolder

app = typer.Typer(help="Show or replace the token that the server takes like its API key.", no_args_is_help=True)


@app.command()
@exits()
def show(*, config: ConfigFile = None, as_json: Json = False) -> None:
    """Print the token that the server takes like its API key."""
    folder = _folder(config)
    try:
        token = folder.token.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise CommandFailed(
            f"There is no token in {folder.path}: the first `periscope serve` makes one, and so does "
            "`periscope token rotate`."
        ) from None
    except (OSError, UnicodeDecodeError):
        raise CommandFailed(f"{folder.token} cannot be read: `periscope token rotate` writes a new one.") from None
    _print(folder, token, as_json=as_json)


@app.command()
@exits()
def path(*, config: ConfigFile = None, as_json: Json = False) -> None:
    """Print the file that holds the token; only its owner may read it."""
    folder = _folder(config)
    if as_json:
        print_json({"path": str(folder.token), "exists": folder.token.exists()})
    else:
        typer.echo(folder.token)


@app.command()
@exits()
def rotate(*, config: ConfigFile = None, as_json: Json = False) -> None:
    """Replace the token; a running server takes the new one when it is started again."""
    from periscope.service import read_or_make_token, read_server

    folder = _folder(config)
    try:
        folder.token.unlink(missing_ok=True)
        token = read_or_make_token(folder)
    except OSError as error:
        raise CommandFailed(f"{folder.token} cannot be written: {error.strerror}.") from None
    if read_server(folder) is not None:
        complain("The running server knows the old token until it is restarted.")
    _print(folder, token, as_json=as_json)


def _folder(config: Path | None) -> StateFolder:
    from periscope.service import StateFolder

    return StateFolder(load_config(config).places.state)


def _print(folder: StateFolder, token: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"path": str(folder.token), "token": token})
    else:
        typer.echo(token)
