"""A menu as SwiftBar reads it, and the plugin that writes such menus. Pure.

Source: https://github.com/swiftbar/SwiftBar (README, "Plugin API": lines, parameters, streamable plugins).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from periscope.menubar.menu import COPYING, Action, CopyText, Item, Menu, OpenPage, RunCommand

#: Ends one menu of a streamable plugin; the next one replaces it.
FRAME_END: Final = "~~~"
_SEPARATOR: Final = "---"
#: Texts are shown as they are: SwiftBar would make emoji of `:name:` and markup of other characters.
_LITERAL: Final = "emojize=false symbolize=false"
_PLUGIN: Final = """\
#!/bin/sh
# <xbar.title>Periscope</xbar.title>
# <xbar.desc>The local inference server: its state, models and captions.</xbar.desc>
# <swiftbar.type>streamable</swiftbar.type>
# <swiftbar.hideRunInTerminal>true</swiftbar.hideRunInTerminal>
# <swiftbar.hideAbout>true</swiftbar.hideAbout>
exec {program} menubar render --follow
"""


def render(menu: Menu, program: Path) -> str:
    """The whole menu, one item a line.

    Args:
        program: `periscope`, which the items call.
    """
    lines = [f"{_text(menu.title)} | sfimage={menu.symbol} {_LITERAL}"]
    for section in menu.sections:
        lines.append(_SEPARATOR)
        for item in section:
            lines.extend(_lines(item, program, depth=0))
    return "\n".join(lines) + "\n"


def plugin_file(program: Path) -> str:
    """The text of the plugin, which SwiftBar starts once and reads for ever."""
    return _PLUGIN.format(program=shlex.quote(str(program)))


def _lines(item: Item, program: Path, *, depth: int) -> Iterator[str]:
    parameters = [*_parameters(item.action, program), *(["checked=true"] if item.is_checked else []), _LITERAL]
    yield f"{'--' * depth}{_text(item.text)} | {' '.join(parameters)}"
    for child in item.children:
        yield from _lines(child, program, depth=depth + 1)


def _parameters(action: Action | None, program: Path) -> Iterator[str]:
    match action:
        case OpenPage(url):
            yield f"href={_quoted(url)}"
        case CopyText(text):
            yield from _call(*COPYING, text)
            yield "terminal=false"
        case RunCommand(arguments, is_shown):
            yield from _call(str(program), *arguments)
            yield f"terminal={'true' if is_shown else 'false'}"


def _call(program: str, *arguments: str) -> Iterator[str]:
    yield f"bash={_quoted(program)}"
    for index, argument in enumerate(arguments):
        yield f"param{index}={_quoted(argument)}"


def _quoted(value: str) -> str:
    """The text in double quotes, in which SwiftBar knows no escapes: what would end them or the line is replaced."""
    line = " ".join(value.splitlines())
    return '"' + line.replace('"', "'").replace("|", "¦") + '"'


def _text(text: str) -> str:
    """On one line, without the character that begins the parameters, and not like a separator or a submenu."""
    line = " ".join(text.replace("|", "¦").split())
    return f"\u2060{line}" if line.startswith(("-", "~")) else line
