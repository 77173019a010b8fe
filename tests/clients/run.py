"""`make clients`: other people's clients against a server with the demo pair, each in an environment of its own.

    python -m tests.clients.run [--upgrade] [NAME...]     # all of them, or those whose name contains a NAME

What a client needs is installed from PyPI and npm into `build/clients`, once. Each script under `scripts/` tells its
checks in lines of JSON; the table at the end has them all, and the exit status is 1 if one failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from rich.console import Console
from rich.table import Column, Table

from periscope.cli.clients import Connection, find_client
from tests.e2e.conftest import RunningServer, start_server
from tests.e2e.drawing import circle
from tests.engine.embedding.checkpoints import write_model

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "clients"
SCRIPTS = Path(__file__).with_name("scripts")
KEY = "a-key-of-the-client-suite"
CONFIG = """
server: {{api_key: {key}}}
models:
- name: demo
  local_path: "embedded:text"
  preload: true
  capabilities: {{vision_mode: proxy, vision_proxy: {{model: captioner}}}}
- {{name: embedder, local_path: ./embedder}}
- {{name: captioner, local_path: "embedded:captioner", preload: true}}
"""
CHECKS = (
    "chat",
    "stream",
    "tools",
    "schema",
    "picture",
    "unknown_model",
    "wrong_key",
    "models",
    "responses",
    "embeddings",
    "completions",
    "mcp",
)
#: Longer than any client takes for all of its checks on a busy machine.
PATIENCE_S = 600
#: environment -> what pip installs into it, or npm for the one named `node`.
ENVIRONMENTS: Mapping[str, tuple[str, ...]] = {
    "sdk": ("openai", "anthropic"),
    "langchain": ("langchain", "langchain-openai", "langchain-anthropic"),
    "litellm": ("litellm",),
    "pydantic-ai": ("pydantic-ai-slim[openai,anthropic,mcp]",),
    "openai-agents": ("openai-agents",),
    "instructor": ("instructor",),
    "llm": ("llm",),
    "node": (
        "openai",
        "@anthropic-ai/sdk",
        "ai",
        "@ai-sdk/openai@3",
        "@ai-sdk/openai-compatible",
        "@ai-sdk/anthropic",
        "zod",
    ),
}
#: check -> `ok` or what went wrong.
Results: TypeAlias = dict[str, str]


@dataclass(frozen=True, slots=True)
class ClientScript:
    """One row of the table: a script, and the environment that it runs in."""

    name: str
    environment: str
    script: str
    arguments: tuple[str, ...] = ()

    def command(self) -> list[str]:
        """As it is started."""
        folder = BUILD / self.environment
        if self.script.endswith(".mjs"):  # Node looks for packages beside the script
            return ["node", str(folder / self.script), *self.arguments]
        return [str(folder / "bin" / "python"), str(SCRIPTS / self.script), *self.arguments]


CLIENTS = (
    ClientScript("openai, Python", "sdk", "openai_sdk.py"),
    ClientScript("anthropic, Python", "sdk", "anthropic_sdk.py"),
    ClientScript("openai, Node", "node", "openai_sdk.mjs"),
    ClientScript("anthropic, Node", "node", "anthropic_sdk.mjs"),
    ClientScript("langchain-openai", "langchain", "langchain_models.py", ("openai",)),
    ClientScript("langchain-openai, responses", "langchain", "langchain_models.py", ("responses",)),
    ClientScript("langchain-anthropic", "langchain", "langchain_models.py", ("anthropic",)),
    ClientScript("litellm openai/", "litellm", "litellm_calls.py", ("openai",)),
    ClientScript("litellm anthropic/", "litellm", "litellm_calls.py", ("anthropic",)),
    ClientScript("pydantic-ai, OpenAI", "pydantic-ai", "pydantic_ai_agents.py", ("chat",)),
    ClientScript("pydantic-ai, responses", "pydantic-ai", "pydantic_ai_agents.py", ("responses",)),
    ClientScript("pydantic-ai, Anthropic", "pydantic-ai", "pydantic_ai_agents.py", ("anthropic",)),
    ClientScript("pydantic-ai, MCP", "pydantic-ai", "pydantic_ai_mcp.py", ("stdio",)),
    ClientScript("pydantic-ai, /mcp", "pydantic-ai", "pydantic_ai_mcp.py", ("http",)),
    ClientScript("openai-agents, chat", "openai-agents", "openai_agents.py", ("chat",)),
    ClientScript("openai-agents, responses", "openai-agents", "openai_agents.py", ("responses",)),
    ClientScript("openai-agents, /mcp", "openai-agents", "openai_agents_mcp.py"),
    ClientScript("instructor", "instructor", "instructor_calls.py"),
    ClientScript("llm", "llm", "llm_command.py"),
    ClientScript("AI SDK, compatible", "node", "ai_sdk.mjs", ("compatible",)),
    ClientScript("AI SDK, responses", "node", "ai_sdk.mjs", ("openai",)),
    ClientScript("AI SDK, Anthropic", "node", "ai_sdk.mjs", ("anthropic",)),
)


def main() -> int:
    """Install, run, tell; the exit status."""
    options = _options()
    chosen = [client for client in CLIENTS if not options.names or any(name in client.name for name in options.names)]
    for environment in dict.fromkeys(client.environment for client in chosen):
        _install(environment, upgrade=options.upgrade)
    with tempfile.TemporaryDirectory(prefix="periscope-clients-") as folder:
        os.environ["PERISCOPE_HOME"] = folder
        results = _results(chosen, Path(folder))
    _print(results)
    return int(any(told != "ok" for checks in results.values() for told in checks.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs other people's clients against a server with the demo pair.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="run the clients whose names contain it")
    parser.add_argument("--upgrade", action="store_true", help="install the newest versions first")
    return parser.parse_args()


def _install(environment: str, *, upgrade: bool) -> None:
    """Install what is not there yet; a list of packages that has changed is installed anew."""
    packages, folder = ENVIRONMENTS[environment], BUILD / environment
    stamp, wanted = folder / ".installed", "\n".join(packages)
    if stamp.exists() and stamp.read_text() == wanted and not upgrade:
        return
    print(f"Installing {', '.join(packages)}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    if environment == "node":
        (folder / "package.json").write_text('{"private": true, "type": "module"}')
        command = ["npm", "install", "--silent", *packages]
    else:
        _run([sys.executable, "-m", "venv", str(folder)], folder)
        command = [str(folder / "bin" / "pip"), "install", "--quiet", "--upgrade", *packages]
    _run(command, folder)
    stamp.write_text(wanted)


def _run(command: Sequence[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True)


def _results(chosen: Sequence[ClientScript], folder: Path) -> dict[str, Results]:
    (folder / "models.yaml").write_text(CONFIG.format(key=KEY))
    write_model(folder / "embedder", "bert")
    circle("red").save(folder / "circle.png")
    for script in SCRIPTS.glob("*.mjs"):
        if (BUILD / "node").is_dir():
            (BUILD / "node" / script.name).write_text(script.read_text())
    server = start_server(folder / "models.yaml", log=folder / "server.log")
    try:
        return {client.name: _checked(client, server, folder) for client in chosen}
    finally:
        server.stop()


def _checked(client: ClientScript, server: RunningServer, folder: Path) -> Results:
    """What one client's checks came to. What it writes to stderr is passed on: it holds the tracebacks."""
    print(f"--- {client.name}", file=sys.stderr)
    llm = find_client("llm")
    assert llm is not None
    told = {
        "PERISCOPE_URL": server.url,
        "PERISCOPE_KEY": KEY,
        "PERISCOPE_PYTHON": sys.executable,
        "PERISCOPE_PICTURE": str(folder / "circle.png"),
        "LLM_SETTINGS": llm.settings(Connection(server.url, "demo", True, 4096, True)),
        "PYTHONUNBUFFERED": "1",
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "ANTHROPIC_"))}
    ended = subprocess.run(
        client.command(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=environment | told,
    )
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith('{"check"')]
    results = {line["check"]: "ok" if line["result"] == "ok" else line["detail"] for line in lines}
    return results if ended.returncode == 0 else {**results, "the script": f"ended with {ended.returncode}"}


def _print(results: Mapping[str, Results]) -> None:
    table = Table(Column("client", no_wrap=True), *CHECKS, caption="- = not offered by the client")
    for name, checks in results.items():
        table.add_row(name, *(_cell(checks.get(check)) for check in CHECKS))
    console = Console(width=None if sys.stdout.isatty() else 180)
    console.print(table)
    for name, checks in results.items():
        for check, told in checks.items():
            if told != "ok":
                console.print(f"{name}, {check}: {told}", markup=False)


def _cell(told: str | None) -> str:
    return "-" if told is None else "ok" if told == "ok" else "[red]failed[/red]"


if __name__ == "__main__":
    sys.exit(main())
