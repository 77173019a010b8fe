"""The menubar without SwiftBar: the same menus in a status item of macOS, by `rumps`.

The toolkit owns the main thread. A thread of the app follows the server and leaves the newest view; a timer of the
toolkit takes it, because menus may be changed on the main thread alone.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from periscope.menubar.menu import COPYING, Action, CopyText, Item, Menu, OpenPage, RunCommand, menu_of

if TYPE_CHECKING:
    from periscope.menubar.view import View

_POLL_S: Final = 0.5
#: Beside the title in place of SF Symbols, which rumps cannot show.
_SYMBOLS: Final = {"eye.slash": "○", "eye": "◉", "eye.fill": "●", "eye.circle": "◔", "exclamationmark.triangle": "⚠"}


@runtime_checkable
class Toolkit(Protocol):
    """What is used of rumps. All of it is called on the main thread."""

    def new_app(self, title: str) -> Any:
        """An app with `title` and `menu`."""
        ...

    def new_item(self, title: str, callback: Callable[[Any], None] | None) -> Any:
        """A line with `title`, `state` (its mark) and `add` (for children); without a callback it cannot be clicked."""
        ...

    def every(self, seconds: float, callback: Callable[[Any], None]) -> None:
        """Call on the main thread again and again, once the app runs."""
        ...

    def run(self, app: Any) -> None:
        """Until the app is quit."""
        ...

    def quit(self, sender: Any) -> None:
        """End the app; called by its menu."""
        ...


class MenubarApp:
    """Owns the status item, its entries, and the thread that follows the server.

    Args:
        program: `periscope`, which the items call.
        follow: views of the server, for ever.
        start: runs a program and does not wait for it.
    """

    def __init__(
        self,
        toolkit: Toolkit,
        program: Path,
        follow: Callable[[], AsyncGenerator[View, None]],
        start: Callable[[tuple[str, ...]], None] | None = None,
    ) -> None:
        self._toolkit = toolkit
        self._program = program
        self._follow = follow
        self._start = start or _start
        self._newest: View | None = None
        self._shown: Menu | None = None
        self._entries: list[Any] = []  # of the menu's items, in the order of `_flat`
        self._app = toolkit.new_app(_SYMBOLS["eye.slash"])

    def run(self) -> None:
        """Until it is quit. The following thread ends with the process."""
        threading.Thread(target=lambda: asyncio.run(self.keep()), name="menubar", daemon=True).start()
        self._toolkit.every(_POLL_S, lambda _timer: self.refresh())
        self._toolkit.run(self._app)

    async def keep(self) -> None:
        """Keep the newest view, for as long as there are any."""
        async with aclosing(self._follow()) as seen:
            async for view in seen:
                self._newest = view

    def refresh(self) -> None:
        """Show the newest view, if it looks different. Main thread."""
        menu = self._shown if self._newest is None else menu_of(self._newest)
        if menu is None or menu == self._shown:
            return
        self._app.title = f"{_SYMBOLS[menu.symbol]} {menu.title}".strip()
        if self._shown is None or _shape(menu) != _shape(self._shown):
            self._rebuild(menu)
        else:  # rumps 0.4 keeps every item that was ever made: while tokens are counted no new ones are
            for entry, item in zip(self._entries, _flat(menu), strict=True):
                entry.title, entry.state = item.text, int(item.is_checked)
        self._shown = menu

    def _rebuild(self, menu: Menu) -> None:
        self._entries = []
        lines: list[Any] = []
        for section in menu.sections:
            lines += [*map(self._entry, section), None]  # None is a line between sections
        self._app.menu.clear()
        self._app.menu = [*lines, self._toolkit.new_item("Quit", self._toolkit.quit)]

    def _entry(self, item: Item) -> Any:
        action = item.action
        entry = self._toolkit.new_item(item.text, None if action is None else lambda _entry: self._do(action))
        entry.state = int(item.is_checked)
        self._entries.append(entry)
        for child in item.children:
            entry.add(self._entry(child))
        return entry

    def _do(self, action: Action) -> None:
        self._start(command_of(action, self._program))


def _flat(menu: Menu) -> Iterator[Item]:
    """Each item before its children."""

    def walk(items: tuple[Item, ...]) -> Iterator[Item]:
        for item in items:
            yield item
            yield from walk(item.children)

    for section in menu.sections:
        yield from walk(section)


def _shape(menu: Menu) -> object:
    """What a menu has beside its texts and marks."""

    def shape(items: tuple[Item, ...]) -> object:
        return tuple((item.action, shape(item.children)) for item in items)

    return tuple(shape(section) for section in menu.sections)


def command_of(action: Action, program: Path) -> tuple[str, ...]:
    """Pure: what macOS is to run. What is to be seen runs in Terminal, to which AppleScript gets it as an argument."""
    match action:
        case OpenPage(url):
            return ("/usr/bin/open", url)
        case CopyText(text):
            return (*COPYING, text)
        case RunCommand(arguments, is_shown=False):
            return (str(program), *arguments)
        case RunCommand(arguments):
            script = (
                "on run argv",
                'set line to ""',
                'repeat with word in argv\nset line to line & quoted form of word & " "\nend repeat',
                'tell application "Terminal"\nactivate\ndo script line\nend tell',
                "end run",
            )
            flags = [part for line in script for part in ("-e", line)]
            return ("/usr/bin/osascript", *flags, str(program), *arguments)


def _start(command: tuple[str, ...]) -> None:
    subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603


def rumps_toolkit(platform: str = sys.platform) -> Toolkit | None:
    """The real one; None where it is not installed, or where there is no menubar."""
    if platform != "darwin":
        return None
    try:
        import rumps
    except ImportError:
        return None

    class Rumps:
        """Source: rumps 0.4, https://rumps.readthedocs.io."""

        def new_app(self, title: str) -> Any:
            return rumps.App("Periscope", title=title, quit_button=None)  # it would go with the first menu

        def new_item(self, title: str, callback: Callable[[Any], None] | None) -> Any:
            return rumps.MenuItem(title, callback=callback)

        def every(self, seconds: float, callback: Callable[[Any], None]) -> None:
            rumps.Timer(callback, seconds).start()

        def run(self, app: Any) -> None:
            app.run()

        def quit(self, sender: Any) -> None:
            rumps.quit_application(sender)

    return Rumps()
