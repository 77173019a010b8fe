"""All commands as data, and the group that imports a command's module when it is used, not when all are listed."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Entry:
    """One command, or a group of them.

    Attributes:
        place: `module:attribute` below `periscope.cli`: a function, or a `typer.Typer`.
        summary: the first line of its help.
    """

    panel: str
    place: str
    summary: str

    def load(self) -> Any:
        """The function or the Typer itself."""
        module, _, attribute = self.place.partition(":")
        return getattr(import_module(f"periscope.cli.{module}"), attribute)


_TALK, _SERVER, _MODELS, _SETTING_UP = "Ask", "The server", "Models", "Setting up"
COMMANDS: Final[Mapping[str, Entry]] = {
    "ask": Entry(
        _TALK, "ask:ask", "Ask the running server, or a model loaded for this one question, and print the answer."
    ),
    "chat": Entry(
        _TALK,
        "chat:chat",
        "Talk with a model: /image FILE or a pasted path shows it a picture, Ctrl-C stops an answer, Ctrl-D ends.",
    ),
    "caption": Entry(
        _TALK,
        "caption:caption",
        "Describe images, documents and videos as a text model reads them, with the captioner of the model.",
    ),
    "serve": Entry(_SERVER, "serve:serve", "Serve the models of models.yaml over HTTP until SIGTERM or Ctrl-C."),
    "status": Entry(
        _SERVER,
        "status:status",
        "Show the running server: its state, memory, models and requests; exit code 3 when none runs.",
    ),
    "ps": Entry(
        _SERVER, "status:ps", "List the models in the running server's memory, and the requests that run or wait."
    ),
    "load": Entry(
        _SERVER, "control:load", "Load a model into the running server's memory; idle models make room for it."
    ),
    "unload": Entry(
        _SERVER, "control:unload", "Take a model out of the running server's memory as soon as its requests are done."
    ),
    "select": Entry(
        _SERVER,
        "control:select",
        "Make a text model the default of the running server, until it restarts, and load it.",
    ),
    "logs": Entry(
        _SERVER, "logs:logs", "Print the end of the server's log; `service logs` has what launchd kept of the agent."
    ),
    "captions": Entry(_SERVER, "captions:app", "Show or flush the captions that are kept."),
    "cache": Entry(_SERVER, "cache:app", "Show or clear what of earlier prompts is kept on disk."),
    "service": Entry(_SERVER, "service:app", "Run the server as a launchd agent: at login, and again after a crash."),
    "menubar": Entry(_SERVER, "menubar:app", "Show the server in the menubar, with SwiftBar or without."),
    "pull": Entry(
        _MODELS,
        "pull:pull",
        "Fetch a model, and the captioner that goes with it, from the Hugging Face hub; again to go on or to update.",
    ),
    "ls": Entry(
        _MODELS,
        "models:ls",
        "List the configured models and whether they are on this disk, then what else the cache holds.",
    ),
    "show": Entry(
        _MODELS, "models:show", "Show what a model is: its files, size, architecture, context, quantisation and sight."
    ),
    "rm": Entry(_MODELS, "models:rm", "Remove a model from the cache, with all its revisions."),
    "bench": Entry(_MODELS, "bench:app", "Measure the engine, the server or the captioner on this machine."),
    "doctor": Entry(
        _SETTING_UP,
        "doctor:doctor",
        "Check this machine, the configuration and the models, and say how to mend what is not right.",
    ),
    "config": Entry(_SETTING_UP, "config:app", "Show, check or begin the configuration."),
    "connect": Entry(
        _SETTING_UP,
        "connect:connect",
        "Print the settings with which a client uses this server; without CLIENT, which clients there are.",
    ),
    "mcp": Entry(
        _SETTING_UP,
        "mcp:mcp",
        "Serve describe_image, read_text and ask_about_image to an agent, as an MCP server over stdin and stdout.",
    ),
    "key": Entry(_SETTING_UP, "key:app", "Make and list API keys for several clients."),
    "token": Entry(_SETTING_UP, "token:app", "Show or replace the token that the server takes like its API key."),
    "completion": Entry(
        _SETTING_UP,
        "completion:completion",
        "Print a shell's completion script: source <(periscope completion bash), in ~/.bashrc or ~/.zshrc.",
    ),
    "version": Entry(_SETTING_UP, "version:version", "Print the versions of Periscope and of what it runs on."),
}


class CommandTable(TyperGroup):
    """The root group, over `COMMANDS`."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - its place in typer
        """The names of the commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - its place in typer
        """The command of this name, whose module is imported now; None if there is none."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        loaded = entry.load()
        if isinstance(loaded, typer.Typer):
            loaded.rich_markup_mode = None
            command: Any = typer.main.get_group(loaded)
        else:
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(cmd_name)(loaded)
            command = typer.main.get_command(alone)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name. One that there is not is a usage error, with the names that are near."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            near = ", ".join(repr(each) for each in get_close_matches(name, COMMANDS))
            hint = f"Did you mean {near}?" if near else "`periscope --help` lists the commands."
            ctx.fail(f"No such command {name!r}. {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - its place in typer
        """The commands by their summaries, without a module of any of them."""
        for panel in dict.fromkeys(entry.panel for entry in COMMANDS.values()):
            with formatter.section(panel):
                formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items() if entry.panel == panel])
