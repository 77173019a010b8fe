"""`periscope service`, on a Mac whose launchd is the tests', and on this machine."""

from __future__ import annotations

import json
import plistlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from periscope.cli.app import app
from periscope.cli.service_verbs import PACKAGE, is_shipped
from periscope.service import Machine
from tests.cli.process import run_command
from tests.service.fake_launchd import GUI, FakeClock, FakeLaunchd, mac

TARGET = f"{GUI}/local.periscope.server"
MODELS = "server: {{port: {port}}}\nmodels:\n  - {{name: m, hf_id: a/b}}\n"


@pytest.fixture
def launchd() -> FakeLaunchd:
    return FakeLaunchd(FakeClock())


@pytest.fixture
def port(launchd: FakeLaunchd) -> Iterator[int]:
    """Where a Periscope answers while launchd has one running."""
    with server_of(launchd) as number:
        yield number


@pytest.fixture
def machine(tmp_path: Path, launchd: FakeLaunchd) -> Machine:
    return mac(tmp_path, launchd)


@pytest.fixture
def config(tmp_path: Path, port: int) -> Path:
    file = tmp_path / "models.yaml"
    file.write_text(MODELS.format(port=port))
    return file


@contextmanager
def server_of(launchd: FakeLaunchd) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"status": "alive", "server": {"state": "ready"}}'
            self.send_response(200 if launchd.is_serving() else 503)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def periscope(machine: Machine, *arguments: str) -> Result:
    return cli.invoke(app, ["service", *arguments], obj=machine)


cli = CliRunner()


def test_a_service_lives_through_all_its_commands(machine: Machine, launchd: FakeLaunchd, config: Path) -> None:
    """Installed, seen, restarted, stopped, started and uninstalled, each told in a sentence and by its exit code."""
    installed = periscope(machine, "install", "--config", str(config))
    assert installed.exit_code == 0, installed.output
    assert installed.stdout == "Installed: running, process 701, and it answers.\n"
    assert f"launchctl bootstrap {GUI}" in installed.stderr
    assert launchd.jobs[TARGET].definition["ProgramArguments"][-2:] == ["--config", str(config)]
    again = periscope(machine, "install", "--config", str(config))
    assert (again.exit_code, again.stdout) == (0, "Nothing to do: the service is in that state already.\n")
    assert periscope(machine, "status").exit_code == 0
    assert periscope(machine, "restart").stdout == "Restarted: running, process 702, and it answers.\n"
    assert periscope(machine, "stop").stdout.startswith("Stopped. It starts again at the next login")
    assert periscope(machine, "status").exit_code == 3
    assert periscope(machine, "start").stdout.startswith("Started: running")
    uninstalled = periscope(machine, "uninstall")
    assert str(machine.paths.logs) in uninstalled.stdout
    assert (launchd.jobs, machine.paths.plist.exists(), config.exists()) == ({}, False, True)
    assert periscope(machine, "status").exit_code == 3


def test_status_as_json_has_the_promised_keys(machine: Machine, config: Path, port: int) -> None:
    """One object, with launchd's view, the files and what the server says of itself."""
    periscope(machine, "install", "--config", str(config))
    told = json.loads(periscope(machine, "status", "--json").stdout)
    assert (
        told.items()
        >= {
            "schema_version": 1,
            "supervisor": "launchd",
            "installed": True,
            "loaded": True,
            "running": True,
            "state": "running",
            "domain": GUI,
            "session": "Aqua",
            "pid": 701,
            "runs": 1,
            "last_exit": None,
            "spawn_type": "interactive (4)",
            "plist_path": str(machine.paths.plist),
            "plist_matches_current": True,
            "config_path": str(config),
            "url": f"http://127.0.0.1:{port}",
            "ready": True,
            "server": {"state": "ready"},
            "notes": [],
        }.items()
    )
    periscope(machine, "stop")
    ended = periscope(machine, "status", "--json")
    told = json.loads(ended.stdout)
    assert (ended.exit_code, told["installed"], told["loaded"], told["pid"]) == (3, True, False, None)
    assert (told["url"], told["ready"], told["server"]) == (None, None, None)


def test_status_in_words_has_its_troubles_on_stderr(machine: Machine, launchd: FakeLaunchd, config: Path) -> None:
    """The table pipes; what should be done about it does not get in its way."""
    periscope(machine, "install", "--config", str(config))
    launchd.end(TARGET, 1)
    shown = periscope(machine, "status")
    rows = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert rows["state"] == "scheduled"
    assert "exit code 1" in shown.stdout
    assert "service logs" in shown.stderr


def test_verbs_as_json_tell_their_steps(machine: Machine, config: Path) -> None:
    """A script sees whether anything was changed, and what."""
    done = json.loads(periscope(machine, "install", "--config", str(config), "--json").stdout)
    assert (done["verb"], done["changed"], done["dry_run"], done["answers"]) == ("install", True, False, True)
    assert done["steps"][-2].startswith("launchctl bootstrap")
    again = json.loads(periscope(machine, "install", "--config", str(config), "--json").stdout)
    assert (again["changed"], again["steps"]) == (False, [])
    rehearsed = json.loads(periscope(machine, "uninstall", "--dry-run", "--json").stdout)
    assert (rehearsed["changed"], rehearsed["dry_run"], rehearsed["state"]) == (False, True, "running")
    assert rehearsed["steps"] == [
        f"launchctl bootout {TARGET}",
        "wait until launchd has let go of the job",
        f"remove {machine.paths.plist}",
    ]


@pytest.mark.parametrize("verb", ["install", "uninstall", "start", "stop", "restart"])
def test_a_dry_run_changes_nothing(machine: Machine, launchd: FakeLaunchd, config: Path, verb: str) -> None:
    """Neither file nor job, whatever the verb."""
    periscope(machine, "install", "--config", str(config))
    before = (machine.paths.plist.read_bytes(), launchd.changes())
    options = ["--program", sys.executable] if verb == "install" else []
    assert periscope(machine, verb, "--dry-run", *options).exit_code == 0
    assert (machine.paths.plist.read_bytes(), launchd.changes()) == before


def test_a_failed_installation_is_a_sentence_and_exit_1(machine: Machine, launchd: FakeLaunchd, config: Path) -> None:
    """What the server said last stands with it; there is no traceback."""
    launchd.exits_with = 75
    ended = periscope(machine, "install", "--config", str(config))
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "The server ended at once, with exit code 75." in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_models_yaml_that_cannot_be_used_is_not_installed(machine: Machine, config: Path) -> None:
    """It would crash at every login: exit 78, as from the other commands."""
    config.write_text("modles: []\n")
    ended = periscope(machine, "install", "--config", str(config))
    assert ended.exit_code == 78
    assert not machine.paths.plist.exists()


def test_what_launchd_will_not_see_is_told(machine: Machine, config: Path) -> None:
    """By name; the key itself is never printed."""
    env = {**machine.env, "HF_TOKEN": "hush", "HF_HOME": str(machine.home / "hf")}
    ended = periscope(replace(machine, env=env), "install", "--config", str(config))
    assert "will not see HF_TOKEN" in ended.stderr
    assert "hush" not in ended.output
    definition = plistlib.loads(machine.paths.plist.read_bytes())
    assert definition["EnvironmentVariables"]["HF_HOME"] == str(machine.home / "hf")


def test_logs_are_the_ends_of_both_files(machine: Machine) -> None:
    """As many lines as asked for; a service that never ran is told so."""
    assert periscope(machine, "logs").exit_code == 1
    machine.paths.logs.mkdir(parents=True)
    machine.paths.err_log.write_text("one\ntwo\nthree\n")
    assert periscope(machine, "logs", "-n", "2").stdout == "two\nthree\n"


def test_logs_are_followed_until_ctrl_c(machine: Machine, launchd: FakeLaunchd) -> None:
    """What is written comes as it is written; Ctrl-C ends with 130."""
    machine.paths.logs.mkdir(parents=True)
    log = machine.paths.err_log
    log.write_text("old\n")
    pending = iter(["old\nnew\n"])

    def write() -> None:
        text = next(pending, None)
        if text is None:
            raise KeyboardInterrupt
        log.write_text(text)

    launchd.clock.on_tick.append(write)
    ended = periscope(machine, "logs", "-f")
    assert (ended.exit_code, ended.stdout) == (130, "old\nnew\n")


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has launchd")
def test_without_launchd_the_commands_say_so(config: Path) -> None:
    """One sentence with what to do instead, as a real process; plist and --dry-run work on any system."""
    for verb in (["install", "--config", "/none.yaml"], ["status"], ["logs"]):
        ended = run_command("service", *verb)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith("launchd is part of macOS"), verb
    shown = run_command("service", "plist", "--config", str(config), "--program", sys.executable)
    assert plistlib.loads(shown.stdout.encode())["ProgramArguments"][1:] == ["serve", "--config", str(config)]
    rehearsed = run_command("service", "install", "--dry-run", "--config", str(config), "--program", sys.executable)
    assert rehearsed.returncode == 0
    assert "launchctl bootstrap" in rehearsed.stdout
    assert "This is no Mac" in rehearsed.stderr


def test_the_shipped_models_yaml_is_left_to_the_server(config: Path) -> None:
    """Its path changes with an upgrade; a file of the user's own is named in the plist."""
    assert is_shipped(PACKAGE / "models.yaml")
    assert not is_shipped(config)
