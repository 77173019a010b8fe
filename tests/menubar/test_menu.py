"""Menus as SwiftBar reads them: goldens of every state, and each line by SwiftBar's own grammar."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from periscope.menubar import CopyText, Item, Menu, RunCommand, menu_of, plugin_file, render
from tests.menubar.snapshots import VIEWS, view
from tests.menubar.snapshots import model as row

GOLDENS = Path(__file__).parent / "goldens"
PROGRAM = Path("/Users/me/.local/bin/periscope")
_PARAMETER = re.compile(r'(\w+)=("[^"]*"|\S+)')


def parsed(text: str) -> list[tuple[int, str, dict[str, str]]]:
    """Depth, title and parameters of each line that is no separator, as SwiftBar splits them."""
    lines = []
    for line in text.splitlines():
        if line == "---":
            continue
        title, bar, parameters = line.partition(" | ")
        assert bar, line
        depth = 0
        while title.startswith("--"):
            depth, title = depth + 1, title[2:]
        lines.append((depth, title, {key: value.strip('"') for key, value in _PARAMETER.findall(parameters)}))
    return lines


@pytest.mark.parametrize("name", VIEWS)
def test_a_menu_is_as_it_was_agreed(name: str) -> None:
    """What stands in it, in which order, and what each item does."""
    assert render(menu_of(VIEWS[name]), PROGRAM) == (GOLDENS / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", VIEWS)
def test_every_line_can_be_read_back(name: str) -> None:
    """One title line, then items whose parameters SwiftBar knows; programs are named in full, nothing is empty."""
    (_, _, title), *items = parsed(render(menu_of(VIEWS[name]), PROGRAM))
    assert set(title) == {"sfimage", "emojize", "symbolize"}
    for depth, text, parameters in items:
        assert text.strip()
        assert depth <= 1
        assert set(parameters) <= {"bash", "terminal", "href", "checked", "emojize", "symbolize"} | {
            f"param{number}" for number in range(7)
        }
        assert parameters.get("bash", "/").startswith("/")


@given(st.text(), st.text())
@example("a|b", "c | d")
@example('"m"', "\r~~~")
def test_no_text_breaks_out_of_its_line(name: str, error: str) -> None:
    """Whatever a model is called and however its error reads: no line begins a separator, a frame or new parameters."""
    broken = view(row(name or "m", state="failed", error=error or "e"))
    text = render(menu_of(broken), PROGRAM)
    assert "~~~" not in text.splitlines()
    for line in text.splitlines():
        assert line == "---" or line.count("|") == 1
    sections = menu_of(broken).sections
    assert text.splitlines().count("---") == len(sections)


def test_the_base_url_is_copied_as_it_is() -> None:
    """As an argument, so that no shell and no AppleScript reads anything into it."""
    menu = Menu("", "eye", ((Item("Copy", CopyText("http://h/v1?a=b&c='d' $e")),),))
    _, (_, _, parameters) = parsed(render(menu, PROGRAM))
    assert parameters["bash"] == "/usr/bin/osascript"
    assert parameters["param6"] == "http://h/v1?a=b&c='d' $e"


def test_a_model_offers_what_its_state_allows() -> None:
    """One in memory can be unloaded, one that is not can be loaded, and the default one is marked."""
    menu = menu_of(VIEWS["idle"])
    (big, small) = menu.sections[1]
    assert (big.is_checked, small.is_checked) == (True, False)
    assert [child.action for child in big.children] == [None, RunCommand(("unload", "big", "--no-wait"))]
    assert [child.action for child in small.children] == [
        None,
        RunCommand(("load", "small", "--no-wait")),
        RunCommand(("select", "small", "--no-wait")),
    ]


def test_the_plugin_starts_the_program_in_its_place() -> None:
    """A path with a space is one word, and SwiftBar is told that the plugin streams."""
    text = plugin_file(Path("/Users/a b/periscope"))
    assert text.startswith("#!/bin/sh\n")
    assert "<swiftbar.type>streamable</swiftbar.type>" in text
    assert shlex.split(text.splitlines()[-1]) == ["exec", "/Users/a b/periscope", "menubar", "render", "--follow"]
