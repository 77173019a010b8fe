"""`periscope key`: API keys for several clients, of which models.yaml holds the hashes alone."""

from __future__ import annotations

import re
import secrets
from typing import Annotated

import typer

from periscope.cli.exits import CommandFailed, ExitCode, complain, exits
from periscope.cli.options import ConfigFile, Json, load_config, print_json

app = typer.Typer(help="Make and list API keys for several clients.", no_args_is_help=True)

#: As long as the hash: nothing shorter is worth hashing without salt.
_KEY_BYTES = 32
#: What is made here is blotted out in logs, and found by scanners of leaked secrets, for what it begins with.
_PREFIX = "sk-periscope-"


@app.command()
@exits()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What log and status call the client, such as laptop.")],
    *,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make a key: it is printed once, and the line for models.yaml, which holds its hash."""
    from periscope.api.access_keys import hash_of
    from periscope.config.section import KEY_NAME, PATTERN_MEANINGS

    if not re.fullmatch(KEY_NAME, name) or len(name) > 64:
        raise CommandFailed(f"{name!r} is no name for a key: it {PATTERN_MEANINGS[KEY_NAME]}.", ExitCode.USAGE)
    loaded = load_config(config)
    if any(key.name == name for key in loaded.server.api_keys):
        raise CommandFailed(f"{loaded.path} has a key {name!r} already. Take another name, or remove that one first.")
    key = _PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    hashed = hash_of(key)
    if as_json:
        print_json({"name": name, "key": key, "hash": hashed})
        return
    typer.echo(key)
    complain(
        f"This is the only time that the key is shown. Put its hash into {loaded.path}:\n\n"
        f'server:\n  api_keys:\n    - {{name: {name}, hash: "{hashed}"}}\n\n'
        "A running server takes it at SIGHUP, or at POST /api/server/reload."
    )


@app.command()
@exits()
def ls(*, config: ConfigFile = None, as_json: Json = False) -> None:
    """List the names of the keys that models.yaml has."""
    loaded = load_config(config)
    names = [key.name for key in loaded.server.api_keys]
    if as_json:
        print_json({"path": str(loaded.path), "names": names, "has_api_key": loaded.server.api_key is not None})
        return
    if not names:
        complain(f"{loaded.path} has no keys for several clients. `periscope key new NAME` makes one.")
    for name in names:
        typer.echo(name)
