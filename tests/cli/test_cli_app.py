"""The commands that load nothing: help, versions, wrong usage, and the import contract that keeps them fast."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from periscope import __version__
from periscope.cli.app import app

cli = CliRunner()
SERVICE_VERBS = ("install", "uninstall", "start", "stop", "restart", "status", "logs", "plist")


def test_help_names_every_command() -> None:
    """`periscope --help` lists what can be done."""
    shown = cli.invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert all(
        command in shown.stdout
        for command in ("serve", "ask", "caption", "pull", "ls", "show", "rm", "config", "bench", "service", "version")
    )


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "ask",
        "caption",
        "pull",
        "ls",
        "show",
        "rm",
        "config show",
        "config validate",
        "bench engine",
        "bench serve",
        "bench caption",
        *(f"service {verb}" for verb in SERVICE_VERBS),
        "version",
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    """Each command has a help text."""
    assert "Usage" in cli.invoke(app, [*command.split(), "--help"]).stdout


@pytest.mark.parametrize(
    "command",
    [
        "serve",
        "ask",
        "caption",
        "pull",
        "ls",
        "show",
        "rm",
        "config show",
        "config validate",
        "bench caption",
        "service install",
        "service plist",
    ],
)
def test_every_command_that_reads_the_configuration_takes_config(command: str) -> None:
    """Whoever has a file of their own names it in the same way everywhere, and the model too."""
    shown = cli.invoke(app, [*command.split(), "--help"]).stdout
    assert "--config" in shown
    assert ("--model" in shown) == ("-m" in shown.replace("--model", "").split())


def test_version_tells_what_is_installed() -> None:
    """`version` names Periscope, the mlx family and Python, one a line."""
    lines = cli.invoke(app, ["version"]).stdout.splitlines()
    assert lines[0] == f"periscope {__version__}"
    assert [line.split()[0] for line in lines] == ["periscope", "mlx", "mlx-lm", "mlx-vlm", "python"]


def test_version_as_json_is_one_object() -> None:
    """`version --json` has stable keys and the version of its own shape."""
    told = json.loads(cli.invoke(app, ["version", "--json"]).stdout)
    assert list(told) == ["schema_version", "periscope", "mlx", "mlx-lm", "mlx-vlm", "python"]


def test_the_version_flag_is_short() -> None:
    """`--version` prints one line and ends."""
    assert cli.invoke(app, ["--version"]).stdout == f"periscope {__version__}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["serve", "--nonsense"], ["ask"], ["serve", "--port", "x"]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    """Unknown commands and options, missing arguments and wrong types are usage errors, told on stderr."""
    ended = cli.invoke(app, arguments)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert ended.stderr


def test_quick_commands_import_nothing_heavy() -> None:
    """Help and version start without MLX, HTTP or YAML: nothing slow is imported before a command needs it."""
    program = (
        "import sys\n"
        "from periscope.cli.app import app\n"
        "app(['version'], standalone_mode=False)\n"
        "heavy = {'mlx', 'mlx_lm', 'transformers', 'numpy', 'fastapi', 'uvicorn', 'httpx', 'yaml', 'PIL'}\n"
        "sys.exit(f'imported: {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603
    assert ended.returncode == 0, ended.stderr
