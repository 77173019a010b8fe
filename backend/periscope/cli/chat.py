"""`periscope chat`: a conversation at the terminal, with the running server or a model loaded for it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, aclosing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from periscope.cli.exits import complain, exits
from periscope.cli.options import SCHEMA_VERSION, AskedModel, ConfigFile, Url, load_config

if TYPE_CHECKING:
    from types import ModuleType

    from periscope.cli.chat_session import Answering
    from periscope.config import Config
    from periscope.core import JSONObject, Message, OutputEvent
    from periscope.serving.service import ChatService

_PROMPT: Final = ">>> "
#: Lines of input that the next conversation can go back to.
_HISTORY_LINES: Final = 1000


@exits()
def chat(
    *,
    model: AskedModel = None,
    system: Annotated[str | None, typer.Option(help="System prompt.", show_default=False)] = None,
    url: Url = None,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each answer.")] = False,
) -> None:
    """Talk with a model: /image FILE or a pasted path shows it a picture, Ctrl-C stops an answer, Ctrl-D ends."""
    from periscope.cli.chat_session import ChatSession

    loaded = load_config(config)
    with asyncio.Runner() as runner, _answering(runner, loaded, url, model) as answering:
        session = ChatSession(
            answering, runner.run, complain, model=model, system=system, on_answer=_print_line if as_json else None
        )
        for line in lines_typed(loaded.places.state / "chat_history"):
            if not session.take(line):
                break


@contextmanager
def _answering(runner: asyncio.Runner, config: Config, url: str | None, model: str | None) -> Iterator[Answering]:
    """The running server; else models of this process, which live as long as the block."""
    from periscope.cli.ask import asked_of
    from periscope.cli.client import find_server
    from periscope.cli.in_process import service_of_our_own, text_model
    from periscope.config.named import captioner_name

    server = find_server(url, config)
    if server is not None:
        complain(f"Talking to {server.url}. /help lists the commands.")
        yield partial(asked_of, server)
        return
    entry = text_model(config, model)
    captioner = captioner_name(entry)
    names = {entry.name} if captioner is None else {entry.name, captioner}
    stack = AsyncExitStack()
    try:
        service = runner.run(stack.enter_async_context(service_of_our_own(config, names, required=entry.name)))
        complain(f"No server runs, so {entry.name} was loaded for this conversation. /help lists the commands.")
        yield _served_here(service, entry.name)
    finally:
        runner.run(stack.aclose())


def _served_here(service: ChatService, default: str) -> Answering:
    from periscope.core import GenerationRequest, new_id

    async def answering(model: str | None, messages: tuple[Message, ...]) -> AsyncGenerator[OutputEvent, None]:
        request = GenerationRequest(id=new_id("chat-"), model=model or default, messages=messages)
        async with aclosing(service.stream(request)) as events:
            async for event in events:
                yield event

    return answering


def lines_typed(history: Path) -> Iterator[str]:
    """Lines from stdin; at a terminal with editing and a history that is kept, where Ctrl-C drops a line.

    A line that ends with a backslash goes on in the next one.
    """
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    with _line_editing(history):
        begun = ""
        while True:
            try:
                line = begun + input("... " if begun else _PROMPT)
            except EOFError:
                complain("")
                return
            except KeyboardInterrupt:
                complain("\nCtrl-D or /exit ends the conversation.")
                begun = ""
                continue
            begun = f"{line[:-1]}\n" if line.endswith("\\") else ""
            if line.strip() and not begun:
                yield line


@contextmanager
def _line_editing(history: Path) -> Iterator[None]:
    """Python's readline, where it was built with it; `input` uses it by itself. Only its owner may read the history."""
    try:
        import readline
    except ImportError:
        yield
        return
    with suppress(OSError):
        readline.read_history_file(history)
    readline.set_history_length(_HISTORY_LINES)
    try:
        yield
    finally:
        _keep(readline, history)


def _keep(readline: ModuleType, history: Path) -> None:
    with suppress(OSError):  # a history that cannot be kept is no reason to fail
        history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(history, os.O_WRONLY | os.O_CREAT, 0o600))
        readline.write_history_file(history)


def _print_line(answer: JSONObject) -> None:
    import json

    typer.echo(json.dumps({"schema_version": SCHEMA_VERSION, **answer}, ensure_ascii=False, default=str))
