"""What stands in the menubar, as data: a pure function from a view of the server to a menu. Knows no toolkit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from periscope.core.amounts import duration, size
from periscope.remote.row_texts import download_text, state_text

if TYPE_CHECKING:
    from periscope.menubar.view import View
    from periscope.remote import ModelRow, Snapshot

#: Copies the argument that follows. AppleScript gets it as an argument, so that no text can be read as a script.
COPYING: Final = (
    *("/usr/bin/osascript", "-e", "on run argv", "-e", "set the clipboard to item 1 of argv"),
    *("-e", "end run"),
)
#: States of downloads that a person may want to know of; the others are over.
_FETCHING: Final = ("queued", "downloading", "paused", "failed")
_CAPTION_CHARS: Final = 80
_ERROR_CHARS: Final = 160


@dataclass(frozen=True, slots=True)
class RunCommand:
    """Run `periscope` with these arguments. `is_shown`: in a terminal, because it goes on or has something to say."""

    arguments: tuple[str, ...]
    is_shown: bool = False


@dataclass(frozen=True, slots=True)
class OpenPage:
    """Open an address in the browser."""

    url: str


@dataclass(frozen=True, slots=True)
class CopyText:
    """Put a text on the clipboard."""

    text: str


Action: TypeAlias = RunCommand | OpenPage | CopyText


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a menu.

    Attributes:
        action: what a click does; None = the line only tells something, or opens its children.
        is_checked: it has a mark before it.
    """

    text: str
    action: Action | None = None
    children: tuple[Item, ...] = ()
    is_checked: bool = False


@dataclass(frozen=True, slots=True)
class Menu:
    """Everything that stands in the menubar.

    Attributes:
        title: beside the symbol in the menubar; may be empty.
        symbol: name of an SF Symbol.
        sections: with a line between them; none is empty.
    """

    title: str
    symbol: str
    sections: tuple[tuple[Item, ...], ...]


def menu_of(view: View) -> Menu:
    """The menu for what is known of the server now."""
    snapshot = view.snapshot
    if snapshot is None:
        start = RunCommand(("service", "start")) if view.has_agent else RunCommand(("serve",), is_shown=True)
        offered = (Item("Start the server", start), Item("Check this Mac", RunCommand(("doctor",), is_shown=True)))
        return Menu("", "eye.slash", ((Item("Periscope is not running"),), offered))
    title, symbol = _title(snapshot)
    sections = (
        tuple(_summary(snapshot)),
        tuple(_model(model) for model in snapshot.models if model.kind == "text"),
        tuple(_sight(snapshot, view.captions)),
        tuple(Item(_cut(download_text(each), _ERROR_CHARS)) for each in snapshot.downloads if each.state in _FETCHING),
        tuple(_troubles(snapshot)),
        tuple(_offers(view)),
    )
    return Menu(title, symbol, tuple(section for section in sections if section))


def _title(snapshot: Snapshot) -> tuple[str, str]:
    """The first case that holds: 1 it stops, 2 something failed, 3 a model loads, 4 answers are written, 5 idle."""
    if snapshot.server.state == "stopping":  # 1
        return "", "eye.slash"
    if snapshot.server.state == "failed":  # 2
        return "", "exclamationmark.triangle"
    progress = [model.load.progress for model in snapshot.models if model.load and model.load.progress is not None]
    if progress:  # 3
        return f"{min(progress):.0%}", "eye.circle"
    if snapshot.requests:  # 4
        return _speed(snapshot), "eye.fill"
    return "", "eye"  # 5


def _speed(snapshot: Snapshot) -> str:
    rate = snapshot.server.tokens_per_s
    return f"{rate:.0f} tok/s" if rate else ""


def _summary(snapshot: Snapshot) -> Iterator[Item]:
    memory = snapshot.memory
    yield Item(f"{snapshot.server.state.capitalize()}: {size(memory.held_bytes)} of {size(memory.budget_bytes)} in use")
    if snapshot.host.pressure not in (None, "normal"):
        yield Item(f"Memory pressure: {snapshot.host.pressure}")
    num_running = sum(request.status == "generating" for request in snapshot.requests)
    num_waiting = len(snapshot.requests) - num_running
    if snapshot.requests:
        speed = _speed(snapshot)
        text = f"{num_running} running, {num_waiting} waiting" + (f", {speed}" if speed else "")
        yield Item(text, children=tuple(_request(snapshot)))


def _request(snapshot: Snapshot) -> Iterator[Item]:
    for request in snapshot.requests:
        pictures = f", {request.num_images} pictures" if request.num_images else ""
        state = request.status.replace("_", " ")
        yield Item(f"{request.model}: {state}, {duration(request.age_s)}{pictures}")


def _model(model: ModelRow) -> Item:
    """A model, with what can be done with it in its present state."""
    children = [Item(f"Kept in memory: {'always' if model.pinned else 'as long as there is room'}")]
    if model.is_resident:
        children.append(Item("Unload", RunCommand(("unload", model.id, "--no-wait"))))
    else:
        children.append(Item("Load", RunCommand(("load", model.id, "--no-wait"))))
    if not model.default:
        children.append(Item("Make it the default", RunCommand(("select", model.id, "--no-wait"))))
    return Item(_row(model), children=tuple(children), is_checked=model.default)


def _row(model: ModelRow) -> str:
    queue = f", {model.queued} waiting" if model.queued else ""
    memory = f", {size(model.held_bytes)}" if model.is_resident else ""
    return f"{model.id}: {state_text(model)}{memory}{queue}"


def _sight(snapshot: Snapshot, captions: tuple[str, ...]) -> Iterator[Item]:
    """The captioners and embedding models that are of use now, and what captioners said last."""
    for model in snapshot.models:
        if model.kind != "text" and (model.is_resident or model.error):
            yield Item(f"{'Embedding model' if model.kind == 'embedding' else 'Captioner'} {_row(model)}")
    if captions:
        yield Item("Recent captions", children=tuple(Item(_cut(caption, _CAPTION_CHARS)) for caption in captions))


def _troubles(snapshot: Snapshot) -> Iterator[Item]:
    """Each failed model with the one thing that may help, then what else the server complains of."""
    failed = [model for model in snapshot.models if model.error]
    for model in failed:
        yield Item(_cut(f"{model.id}: {model.error}", _ERROR_CHARS))
        yield Item(f"Load {model.id} again", RunCommand(("load", model.id, "--no-wait")))
    told = {f"{model.id}: {model.error}" for model in failed}
    for problem in snapshot.server.problems:
        if problem not in told:
            yield Item(_cut(problem, _ERROR_CHARS), RunCommand(("logs",), is_shown=True))


def _offers(view: View) -> Iterator[Item]:
    if view.page is not None:
        yield Item("Open Periscope", OpenPage(view.page))
    yield Item("Copy the base URL", CopyText(f"{view.url}/v1"))
    yield Item("Show the log", RunCommand(("logs", "-f"), is_shown=True))
    if view.has_agent:
        yield Item("Restart the server", RunCommand(("service", "restart")))
        yield Item("Stop the server", RunCommand(("service", "stop")))


def _cut(text: str, num_chars: int) -> str:
    """On one line, and no longer than a menu can show."""
    line = " ".join(text.split())
    return line if len(line) <= num_chars else f"{line[: num_chars - 1]}…"
