"""The menubar app, with a toolkit of the tests': what is shown, what a click starts, and what is made anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from periscope.menubar import CopyText, OpenPage, RunCommand, View
from periscope.menubar.native import MenubarApp, Toolkit, command_of, rumps_toolkit
from tests.menubar.snapshots import VIEWS, view

PROGRAM = Path("/bin/periscope")


@dataclass
class Entry:
    title: str
    callback: Callable[[Any], None] | None
    state: int = 0
    children: list[Entry] = field(default_factory=list)

    def add(self, child: Entry) -> None:
        self.children.append(child)


@dataclass
class App:
    title: str
    menu: list[Entry | None] = field(default_factory=list)

    def titles(self) -> list[str]:
        return ["-" if entry is None else entry.title for entry in self.menu]


class Screen:
    """A toolkit that keeps what it was told."""

    def __init__(self) -> None:
        self.num_entries = 0
        self.has_quit = False

    def new_app(self, title: str) -> App:
        self.app = App(title)
        return self.app

    def new_item(self, title: str, callback: Callable[[Any], None] | None) -> Entry:
        self.num_entries += 1
        return Entry(title, callback)

    def every(self, seconds: float, callback: Callable[[Any], None]) -> None:
        assert seconds > 0
        self.tick = callback

    def run(self, app: Any) -> None:
        assert app is self.app

    def quit(self, sender: Any) -> None:
        self.has_quit = sender is not None


def shown(screen: Screen, *seen: View) -> tuple[MenubarApp, list[tuple[str, ...]]]:
    """An app that shows each of these in turn."""
    started: list[tuple[str, ...]] = []
    app: MenubarApp

    async def follow() -> AsyncGenerator[View, None]:
        for each in seen:
            yield each
            app.refresh()

    app = MenubarApp(screen, PROGRAM, follow, started.append)
    asyncio.run(app.keep())
    return app, started


def entry(screen: Screen, title: str) -> Entry:
    return next(each for each in screen.app.menu if each is not None and each.title == title)


def test_the_menu_is_shown_with_marks_and_a_way_to_quit() -> None:
    """The same items as SwiftBar's, the default model marked, and a last one that ends the app."""
    screen = Screen()
    shown(screen, VIEWS["busy"])
    assert isinstance(screen, Toolkit)
    assert screen.app.title == "● 41 tok/s"
    assert screen.app.titles()[:3] == ["Ready: 11.0 GB of 20.0 GB in use", "1 running, 1 waiting, 41 tok/s", "-"]
    assert entry(screen, "big: ready, 9.0 GB, 1 waiting").state == 1
    last = screen.app.menu[-1]
    assert last is not None
    assert last.callback is not None
    last.callback(last)
    assert screen.has_quit


def test_a_click_starts_what_the_item_says() -> None:
    """Without waiting for it; what only tells something cannot be clicked."""
    screen = Screen()
    _, started = shown(screen, VIEWS["idle"])
    small = entry(screen, "small: unloaded")
    assert small.callback is None
    load = small.children[1].callback
    assert load is not None
    load(small.children[1])
    assert started == [("/bin/periscope", "load", "small", "--no-wait")]


def test_items_stay_while_only_their_texts_change() -> None:
    """The toolkit never lets go of an item: an answer that is counted for an hour must not make thousands."""
    screen = Screen()
    model, request = {"id": "m", "state": "ready", "held_bytes": 1}, {"id": "a", "status": "generating"}
    slow, fast = (view(model, requests=(request,), tokens_per_s=rate) for rate in (20.0, 40.0))
    shown(screen, slow)
    num_entries = screen.num_entries
    screen = Screen()
    shown(screen, slow, fast)
    assert screen.num_entries == num_entries
    assert "1 running, 0 waiting, 40 tok/s" in screen.app.titles()
    assert screen.app.title == "● 40 tok/s"


@pytest.mark.parametrize(
    ("action", "command"),
    [
        (OpenPage("http://h/"), ("/usr/bin/open", "http://h/")),
        (RunCommand(("unload", "m")), ("/bin/periscope", "unload", "m")),
    ],
)
def test_what_macos_is_to_run(action: Any, command: tuple[str, ...]) -> None:
    """The browser and our own program."""
    assert command_of(action, PROGRAM) == command


@pytest.mark.parametrize("action", [CopyText("a\" & (do shell script 'x')"), RunCommand(("logs", "-f"), is_shown=True)])
def test_applescript_gets_texts_as_arguments(action: Any) -> None:
    """So that nothing in them is run."""
    program, *rest = command_of(action, PROGRAM)
    assert program == "/usr/bin/osascript"
    scripts = [rest[index + 1] for index, word in enumerate(rest) if word == "-e"]
    given = getattr(action, "text", None) or "logs"
    assert given in rest
    assert not any(given in script for script in scripts)


def test_there_is_no_toolkit_where_there_is_no_menubar() -> None:
    """On other systems, and on a Mac without the extra."""
    assert rumps_toolkit("linux") is None
