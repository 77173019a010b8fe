"""`periscope version`: what is installed, read from the packages' metadata; nothing heavy is imported."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import typer

from periscope import __version__
from periscope.cli.options import Json, print_json

_PACKAGES = ("mlx", "mlx-lm", "mlx-vlm")


def version(*, as_json: Json = False) -> None:
    """Print the versions of Periscope and of what it runs on."""
    versions = {"periscope": __version__, **{name: _installed(name) for name in _PACKAGES}}
    versions["python"] = platform.python_version()
    if as_json:
        print_json(dict(versions))
        return
    for name, number in versions.items():
        typer.echo(f"{name} {number or 'not installed'}")


def _installed(package: str) -> str | None:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return None
