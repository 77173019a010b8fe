"""The menubar verbs at work: where the server and SwiftBar's folder are, and where menus go."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from periscope.cli.client import Server, find_server
from periscope.cli.exits import CommandFailed, ExitCode
from periscope.cli.options import load_config, print_json
from periscope.errors import PeriscopeError
from periscope.menubar import FRAME_END, View, look, menu_of, plugin_file, render, views
from periscope.service import Machine, ServiceFailed, stable_program, this_machine

if TYPE_CHECKING:
    from periscope.core import JSONObject
    from periscope.remote import Snapshot

_PLUGIN_NAME: Final = "periscope.1d.sh"
_NUM_CAPTIONS: Final = 5
#: Beginning of the keys of descriptions; what was read in pictures has keys of its own.
_CAPTION_KEYS: Final = "caption/"
_SWIFTBAR_FOLDER: Final = ("/usr/bin/defaults", "read", "com.ameba.SwiftBar", "PluginDirectory")


class ServerSource:
    """A running server as the menubar sees it. Owns what it knows of the server's page, which does not change."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._page: str | None = None
        self._has_looked_for_page = False

    @property
    def url(self) -> str:
        return self._server.url

    async def status(self) -> Snapshot:
        return await self._server.status()

    def events(self) -> AsyncGenerator[tuple[str, JSONObject], None]:
        return self._server.events()

    async def recent_captions(self) -> tuple[str, ...]:
        _, captions = await self._server.kept_captions(_NUM_CAPTIONS, _CAPTION_KEYS)
        return tuple(str(caption["text"]) for caption in captions)

    async def page(self) -> str | None:
        """As `Source` says; the server is asked for it once."""
        if not self._has_looked_for_page:
            self._page = await self._server.page()
            self._has_looked_for_page = True
        return self._page


def install_plugin(ctx: typer.Context, folder: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Write the plugin, which may be run by its owner, into SwiftBar's folder.

    Raises:
        CommandFailed: there is no such folder, or no program that stays where it is.
    """
    text = plugin_file(_program(_machine(ctx)))
    if dry_run:
        typer.echo(text, nl=False)
        return
    found = folder or swiftbar_folder()
    if found is None or not found.is_dir():
        missing = "SwiftBar has no plugin folder yet: start it once" if found is None else f"There is no folder {found}"
        raise CommandFailed(f"{missing}, or name one with --folder. `brew install swiftbar` installs SwiftBar.")
    file = found / _PLUGIN_NAME
    try:
        file.write_text(text, encoding="utf-8")
        file.chmod(0o755)
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written: {error.strerror}.") from None
    if as_json:
        print_json({"path": str(file)})
    else:
        typer.echo(f"Wrote {file}. SwiftBar shows it at once, or after Refresh All.")


def swiftbar_folder(ask: Callable[[], str] | None = None) -> Path | None:
    """The folder in SwiftBar's settings; None if it was never chosen. `ask`: prints the setting, or raises OSError."""
    try:
        told = (ask or _read_setting)().strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return Path(told).expanduser() if told else None


def print_menu(ctx: typer.Context, url: str | None, config: Path | None, *, follow: bool, as_json: bool) -> None:
    """Once, or one menu for each change until Ctrl-C or until nobody reads any more."""
    if follow and as_json:
        raise CommandFailed("--follow is for SwiftBar: leave out --json.", ExitCode.USAGE)
    machine = _machine(ctx)
    if follow:
        try:
            asyncio.run(_print_all(machine, url, config))
        except BrokenPipeError:
            raise typer.Exit(ExitCode.OK) from None
        return
    menu = menu_of(asyncio.run(_view(machine, url, config)))
    if as_json:
        print_json(asdict(menu))
    else:
        typer.echo(render(menu, _program(machine)), nl=False)


def run_app(ctx: typer.Context, url: str | None, config: Path | None) -> None:
    """Run the native menubar until it is quit; blocks.

    Raises:
        CommandFailed: it is not installed, or this is no Mac.
    """
    from periscope.menubar.native import MenubarApp, Toolkit, rumps_toolkit

    machine = _machine(ctx)
    toolkit = ctx.find_object(Toolkit) or rumps_toolkit()  # type: ignore[type-abstract]  # tests pass one
    if toolkit is None:
        raise CommandFailed(
            "The menubar app needs a Mac and one more package: `uv tool install 'mlx-periscope[menubar]'`. "
            "`periscope menubar install` does the same with SwiftBar."
        )
    MenubarApp(toolkit, _program(machine), lambda: _views(machine, url, config)).run()


def _read_setting() -> str:
    return subprocess.run(_SWIFTBAR_FOLDER, capture_output=True, text=True, timeout=5, check=True).stdout  # noqa: S603


async def _view(machine: Machine, url: str | None, config: Path | None) -> View:
    has_agent = machine.paths.plist.exists()
    source = _find(url, config)
    try:
        return View(has_agent=has_agent) if source is None else await look(source, has_agent=has_agent)
    except PeriscopeError:
        return View(has_agent=has_agent)


async def _print_all(machine: Machine, url: str | None, config: Path | None) -> None:
    program, told = _program(machine), ""
    async with aclosing(_views(machine, url, config)) as seen:
        async for view in seen:
            text = render(menu_of(view), program)
            if text != told:
                typer.echo(f"{text}{FRAME_END}")
                told = text


def _views(machine: Machine, url: str | None, config: Path | None) -> AsyncGenerator[View, None]:
    return views(lambda: _find(url, config), has_agent=machine.paths.plist.exists)


def _find(url: str | None, config: Path | None) -> ServerSource | None:
    """The server, if one runs; what is wrong with models.yaml is the server's to tell."""
    try:
        server = find_server(url, load_config(config))
    except (CommandFailed, PeriscopeError):
        return None
    return None if server is None else ServerSource(server)


def _program(machine: Machine) -> Path:
    try:
        return stable_program(machine)
    except ServiceFailed as error:
        raise CommandFailed(error.message) from None


def _machine(ctx: typer.Context) -> Machine:
    """This machine, or the one that the caller of the command line passed as its object."""
    return ctx.find_object(Machine) or this_machine()
