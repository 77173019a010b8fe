"""Options that several commands share, and the configuration they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from periscope.errors import PeriscopeError

if TYPE_CHECKING:
    from periscope.config import Config


def known_models(incomplete: str) -> list[str]:
    """Names and aliases of models.yaml that begin so, for a shell's completion; none if the file cannot be used."""
    try:
        models = load_config(None).models
    except PeriscopeError:
        return []
    return [name for model in models for name in (model.name, *model.aliases) if name.startswith(incomplete)]


ConfigFile: TypeAlias = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="models.yaml to use.", show_default=False)
]
Host: TypeAlias = Annotated[str | None, typer.Option(help="Address to listen on.", show_default=False)]
Port: TypeAlias = Annotated[int | None, typer.Option(help="Port to listen on; 0 takes any.", show_default=False)]
Tcp: TypeAlias = Annotated[
    bool | None, typer.Option("--tcp/--no-tcp", help="Listen on host and port, or on --uds alone.", show_default=False)
]
Uds: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Unix socket to listen on, for this user alone.", show_default=False)
]
TLSCert: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="PEM certificate: serve HTTPS, with --tls-key.", show_default=False)
]
TLSKey: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="PEM private key of --tls-cert.", show_default=False)
]
DefaultModel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="Default model: a configured name, a hub id or a directory.", show_default=False
    ),
]
VisionModel: TypeAlias = Annotated[
    str | None, typer.Option(help="Captioner of the default model: name, hub id or directory.", show_default=False)
]
VlmBackend: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="BACKEND",
        help="What runs the captioner: mlx (here), or another server: vllm, lmdeploy, triton, openai.",
        show_default=False,
    ),
]
VlmBaseUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="URL", help="That server's API, e.g. http://127.0.0.1:8000/v1.", show_default=False),
]
VlmModel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Captioner of the default model, as that server lists it; with mlx a name.",
        show_default=False,
    ),
]
VlmTimeout: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="SECONDS", help="For all captions of a request: 60, or 90s, 2m.", show_default=False),
]
AskedModel: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Configured model; the default one if left out.",
        show_default=False,
        autocompletion=known_models,
    ),
]
ModelName: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A model of models.yaml, or a hub id (owner/name).",
        show_default=False,
        autocompletion=known_models,
    ),
]
Url: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Server to ask, e.g. http://127.0.0.1:7374; also PERISCOPE_URL.", show_default=False),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

#: Of every JSON object that a command prints; grows when a key changes its meaning or goes.
SCHEMA_VERSION = 1


def load_config(path: Path | None, **flags: object) -> Config:
    """The configuration in effect.

    Raises:
        ConfigError: everything that cannot be used.
    """
    from periscope.config import load

    return load(path, flags=flags)


def print_json(value: dict[str, object]) -> None:
    """One object on stdout, with the version of its shape first."""
    import json

    typer.echo(json.dumps({"schema_version": SCHEMA_VERSION, **value}, indent=2, ensure_ascii=False, default=str))
