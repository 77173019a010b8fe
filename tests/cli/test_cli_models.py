"""`periscope ls`, `show` and `rm` over a cache that a real pull has filled. They run here, and one as a process too."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants
from typer.testing import CliRunner

from periscope.cli.app import app
from periscope.hub import Hub, pull
from tests.cli.process import TIMEOUT_S, environment, run_command
from tests.hub.fake_hub import COMMIT, fake_hub

cli = CliRunner()
CONFIG = """\
models:
  - name: fetched
    hf_id: tiny/fetched
    params: {context_length: 64}
  - name: absent
    hf_id: tiny/absent
    revision: v2
    aliases: [away]
    params: {context_length: 128}
    capabilities: {vision_mode: proxy, vision_proxy: {model: demo-eyes}}
  - name: folder
    local_path: FOLDER
  - name: demo
    local_path: embedded:text
  - name: demo-eyes
    local_path: embedded:captioner
"""


class Machine:
    """Owns a cache with one configured model and one other, and the models.yaml beside it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.hf_home = folder / "hf"
        self.config = folder / "models.yaml"
        self.config.write_text(CONFIG.replace("FOLDER", str(model)))
        self.files = {file.name: file.read_bytes() for file in model.iterdir()}
        close_session()
        with fake_hub() as hub, pytest.MonkeyPatch.context() as patch:
            patch.setenv("NO_PROXY", "*")
            hub.repos["tiny/fetched"] = hub.repos["tiny/other"] = self.files
            for hub_id in ("tiny/fetched", "tiny/other"):
                pull(hub_id, on_progress=lambda _: None, hub=Hub(hub.url, self.hf_home / "hub"))
            close_session()

    def run(self, command: str, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """In this process, whose library has read its environment long ago."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(constants, "HF_HUB_CACHE", str(self.hf_home / "hub"))
            ended = cli.invoke(app, [command, *arguments, "--config", str(self.config)], input=stdin)
        return ended.exit_code, ended.stdout, ended.stderr


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, tiny_text_model: Path) -> Machine:
    """For tests that leave it as it was."""
    return Machine(tmp_path_factory.mktemp("machine"), tiny_text_model)


def test_ls_tells_what_is_on_this_disk(machine: Machine) -> None:
    """Configured models first, each with its size and state, then what else the cache holds."""
    ended = run_command("ls", "--config", str(machine.config), changes={"HF_HOME": str(machine.hf_home)})
    rows = [line.split() for line in ended.stdout.splitlines()]
    assert ended.returncode == 0
    assert machine.run("ls") == (0, ended.stdout, ended.stderr)
    assert rows[0] == ["NAME", "KIND", "MODEL", "SIZE", "REVISION", "STATE"]
    assert [(row[0], " ".join(row[-2:])) for row in rows[1:]] == [
        ("fetched", "on disk"),
        ("absent", "v2 missing"),
        ("folder", "on disk"),
        ("demo", "on disk"),
        ("demo-eyes", "on disk"),
        ("-", "on disk"),
    ]


def test_ls_as_json_is_one_object(machine: Machine) -> None:
    """Stable keys, sizes in bytes, the same for configured models and others."""
    told = json.loads(machine.run("ls", "--json")[1])
    total = sum(map(len, machine.files.values()))
    assert list(told) == ["schema_version", "cache", "models", "others"]
    fetched, absent, folder, demo, _ = told["models"]
    (other,) = told["others"]
    assert fetched | {"path": None} == {
        "name": "fetched",
        "kind": "text",
        "hub_id": "tiny/fetched",
        "path": None,
        "revision": None,
        "commit": COMMIT,
        "size_bytes": total,
        "state": "on_disk",
    }
    assert Path(fetched["path"], "config.json").is_file()
    assert (absent["state"], absent["path"], absent["size_bytes"]) == ("missing", None, 0)
    assert (folder["hub_id"], folder["size_bytes"], folder["state"]) == (None, total, "on_disk")
    assert demo["size_bytes"] > total
    assert (other["name"], other["hub_id"], other["commit"]) == (None, "tiny/other", COMMIT)
    assert list(other) == list(fetched)


def test_show_tells_what_a_model_is(machine: Machine) -> None:
    """From its files alone; the context is what models.yaml allows of it."""
    told = json.loads(machine.run("show", "fetched", "--json")[1])
    assert told["hub_id"] == "tiny/fetched"
    assert (told["commit"], told["context_length"], told["model_type"]) == (COMMIT, 64, "qwen3")
    assert (told["vision"], told["quantization"]) == (False, None)
    assert {file["name"]: file["size_bytes"] for file in told["files"]} == {
        name: len(content) for name, content in machine.files.items()
    }
    assert told["size_bytes"] == sum(map(len, machine.files.values()))
    shown = machine.run("show", "tiny/other")[1]
    assert "model_type      qwen3\n" in shown
    assert "vision          no\n" in shown


def test_show_of_what_is_not_here_says_how_to_get_it(machine: Machine) -> None:
    """Exit 4 and the command that fetches it on stderr; what models.yaml knows of it is shown all the same."""
    code, shown, complaint = machine.run("show", "absent")
    assert code == 4
    assert complaint == "tiny/absent is not on this disk, or not all of it. Fetch it with `periscope pull absent`.\n"
    rows = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert rows == {
        "name": "absent",
        "hub_id": "tiny/absent",
        "revision": "v2",
        "size_bytes": rows["size_bytes"],
        "state": "missing",
        "kind": "text",
        "aliases": "away, tiny/absent",
        "vision_mode": "proxy",
        "captioner": "demo-eyes",
        "context_length": "128",
    }


def test_show_has_the_same_keys_of_what_is_here_and_what_is_not(machine: Machine) -> None:
    """A program that reads the JSON tells them apart by `state`, and by the exit code."""
    code, shown, _ = machine.run("show", "away", "--json")
    absent, fetched = json.loads(shown), json.loads(machine.run("show", "fetched", "--json")[1])
    assert (code, absent["state"], absent["files"], absent["model_type"]) == (4, "missing", [], None)
    assert list(absent) == list(fetched)
    assert (fetched["state"], fetched["vision_mode"], fetched["captioner"]) == ("on_disk", "disabled", None)
    code, shown, complaint = machine.run("show", "tiny/nowhere")
    assert (code, "state       missing\n" in shown) == (4, True)
    assert "`periscope pull tiny/nowhere`" in complaint


def test_rm_removes_one_model_and_no_other(tmp_path: Path, tiny_text_model: Path) -> None:
    """With --yes, whoever stands behind stdin; the freed bytes are told."""
    machine = Machine(tmp_path, tiny_text_model)
    code, shown, complaint = machine.run("rm", "fetched", "--yes")
    assert code == 0, complaint
    assert shown.startswith("Removed tiny/fetched: ")
    told = json.loads(machine.run("ls", "--json")[1])
    assert told["models"][0]["state"] == "missing"
    assert [other["hub_id"] for other in told["others"]] == ["tiny/other"]
    assert machine.run("rm", "fetched", "--yes")[0] == 4
    assert machine.run("rm", "fetched")[0] == 4  # there is nothing to ask about


def test_rm_does_not_take_a_pipe_for_an_answer(machine: Machine) -> None:
    """Without a terminal there is nobody to ask: refused, nothing is deleted."""
    code, shown, complaint = machine.run("rm", "fetched", stdin="y\n")
    assert (code, shown) == (2, "")
    assert "--yes" in complaint
    assert json.loads(machine.run("ls", "--json")[1])["models"][0]["state"] == "on_disk"


def test_rm_asks_a_person(machine: Machine) -> None:
    """On a terminal the size is told and a no is a no."""
    ours, theirs = pty.openpty()
    os.write(ours, b"n\n")
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "periscope", "rm", "fetched", "--config", str(machine.config)],
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=environment({"HF_HOME": str(machine.hf_home)}),
    )
    os.close(ours)
    os.close(theirs)
    assert (ended.returncode, ended.stdout.strip()) == (1, "")
    assert "Remove tiny/fetched (" in ended.stderr
    assert "Nothing was removed." in ended.stderr
    assert json.loads(machine.run("ls", "--json")[1])["models"][0]["state"] == "on_disk"


@pytest.mark.parametrize(
    ("name", "told"), [("demo", "demo is part of Periscope"), ("folder", "which models.yaml names")]
)
def test_rm_never_touches_what_pull_did_not_bring(machine: Machine, name: str, told: str) -> None:
    """The embedded pair and folders of the user stay, whatever is said."""
    code, _, complaint = machine.run("rm", name, "--yes")
    assert code == 1
    assert told in complaint
    assert json.loads(machine.run("ls", "--json")[1])["models"][2]["state"] == "on_disk"


REMOTE = """\
models:
  - {name: demo, local_path: 'embedded:text'}
  - {name: far-eyes, remote: {base_url: 'http://gpu:8000/v1', model: q/VL}}
"""


def test_a_captioner_on_another_server_has_no_files(tmp_path: Path) -> None:
    """It is listed with its model and address, shown without a complaint, and neither fetched nor removed."""
    (tmp_path / "models.yaml").write_text(REMOTE)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, "--config", str(tmp_path / "models.yaml"), changes={"HF_HOME": str(tmp_path)})

    _, far = json.loads(run("ls", "--json").stdout)["models"]
    assert (far["state"], far["url"], far["model"], far["hub_id"]) == ("remote", "http://gpu:8000/v1", "q/VL", None)
    assert "q/VL at http://gpu:8000/v1" in run("ls").stdout
    assert run("show", "far-eyes").returncode == 0
    assert "there is nothing to fetch" in run("pull", "far-eyes").stderr
    removed = run("rm", "far-eyes", "--yes")
    assert removed.returncode == 1
    assert "far-eyes is q/VL on the server at http://gpu:8000/v1, so it is not removed" in removed.stderr
