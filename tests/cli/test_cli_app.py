"""The commands that load nothing: help, versions, wrong usage, and the import contract that keeps them fast."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from periscope import __version__
from periscope.cli import COMPLETION_VARIABLE
from periscope.cli.app import app
from periscope.cli.command_table import COMMANDS
from tests.cli.process import run_command

cli = CliRunner()
SERVICE_VERBS = ("install", "uninstall", "start", "stop", "restart", "status", "logs", "plist")


LEAVES = (
    *(name for name in COMMANDS if name not in ("bench", "cache", "captions", "config", "menubar", "service", "token")),
    *(f"bench {what}" for what in ("engine", "serve", "caption", "neighbours")),
    *(f"cache {verb}" for verb in ("stats", "clear")),
    *(f"captions {verb}" for verb in ("stats", "show", "flush")),
    *(f"config {verb}" for verb in ("show", "validate", "schema", "init")),
    *(f"service {verb}" for verb in SERVICE_VERBS),
    *(f"menubar {verb}" for verb in ("install", "render", "run")),
    *(f"token {verb}" for verb in ("show", "path", "rotate")),
)


def test_help_names_every_command() -> None:
    """`periscope --help` lists what can be done."""
    shown = cli.invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert all(f" {command} " in shown.stdout for command in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_each_command_says_of_itself(name: str) -> None:
    """The list is made without the commands' modules; a summary that was changed in one place only would differ."""
    loaded = COMMANDS[name].load()
    told = loaded.info.help if isinstance(loaded, typer.Typer) else inspect.getdoc(loaded)
    assert COMMANDS[name].summary == " ".join(str(told).split("\n\n")[0].split())


@pytest.mark.parametrize("command", LEAVES)
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
        "chat",
        "connect",
        "service install",
        "service plist",
    ],
)
def test_every_command_that_reads_the_configuration_takes_config(command: str) -> None:
    """Whoever has a file of their own names it in the same way everywhere, and the model too."""
    shown = cli.invoke(app, [*command.split(), "--help"]).stdout
    assert "--config" in shown
    assert ("--model" in shown) == ("-m, --model" in shown)


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


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("serv", "Did you mean 'serve'"),
        ("statsu", "'status'"),
        ("help", "--help` lists"),
        ("nonsense", "--help` lists"),
    ],
)
def test_a_mistyped_command_is_told_what_is_near(typed: str, hint: str) -> None:
    """Else where all commands are listed."""
    ended = cli.invoke(app, [typed])
    assert (ended.exit_code, f"No such command '{typed}'." in ended.stderr, hint in ended.stderr) == (2, True, True)


@pytest.mark.parametrize("arguments", [["version"], ["--help"], ["load", "--help"], ["chat", "--help"]])
def test_quick_commands_import_nothing_heavy(arguments: list[str]) -> None:
    """Help and version start without MLX, HTTP or YAML: nothing slow is imported before a command needs it."""
    program = (
        "import sys\n"
        "from periscope.cli.app import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        "heavy = {'mlx', 'mlx_lm', 'transformers', 'numpy', 'fastapi', 'uvicorn', 'httpx', 'yaml', 'PIL'}\n"
        "sys.exit(f'imported: {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603
    assert ended.returncode == 0, ended.stderr


def test_the_list_of_commands_imports_none_of_them() -> None:
    """So it is there at once, however many commands there are."""
    program = (
        "import sys\n"
        "from periscope.cli.app import app\n"
        "app(['--help'], standalone_mode=False)\n"
        "ours = {name for name in sys.modules if name.startswith('periscope.')}\n"
        "sys.exit(str(ours - {'periscope.cli', 'periscope.cli.app', 'periscope.cli.command_table'} or 0))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603
    assert ended.stderr.strip() == "0"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion_script(shell: str) -> None:
    """For the command and the variable that the command listens to; another shell is a usage error."""
    script = cli.invoke(app, ["completion", shell]).stdout
    assert COMPLETION_VARIABLE in script
    assert "periscope" in script
    assert cli.invoke(app, ["completion", "cmd"]).exit_code == 2


def test_a_shell_completes_commands_and_model_names() -> None:
    """As the script of bash asks for them."""
    asked = {COMPLETION_VARIABLE: "complete_bash", "COMP_CWORD": "1", "COMP_WORDS": "periscope un"}
    assert run_command(changes=asked).stdout.split() == ["unload"]
    named = {COMPLETION_VARIABLE: "complete_bash", "COMP_CWORD": "2", "COMP_WORDS": "periscope load demo-"}
    assert run_command(changes=named).stdout.split() == ["demo-captioner"]
