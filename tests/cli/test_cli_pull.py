"""`periscope pull` as a real process, from a hub that is real HTTP."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from periscope.cli.pull import PullBar, PullLines
from periscope.hub import PullProgress, PullStatus
from tests.cli.process import TIMEOUT_S, CommandProcess, environment, run_command
from tests.hub.fake_hub import COMMIT, FILES, MODEL, UNWANTED, WEIGHTS, FakeHub, Refusal, fake_hub

EYES = "tiny/eyes"
DRAFT = "tiny/draft"
TOTAL = sum(map(len, FILES.values()))

CONFIG = """\
models:
  - name: seeing
    hf_id: tiny/model-4bit
    aliases: [both]
    params: {draft_model: tiny/draft}
    capabilities: {vision_mode: proxy, vision_proxy: {hf_id: tiny/eyes}}
  - name: pinned
    hf_id: tiny/pinned
    revision: COMMIT
  - name: folder
    local_path: FOLDER
  - name: demo
    local_path: embedded:text
"""


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    """A hub with a model, its captioner and its draft model."""
    with fake_hub() as hub:
        hub.repos[MODEL] = {**FILES, **UNWANTED}
        for other in (EYES, DRAFT, "tiny/pinned"):
            hub.repos[other] = {"config.json": b"{}", "model.safetensors": other.encode()}
        yield hub


@pytest.fixture
def changes(fake: FakeHub, tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has an empty cache and reaches this hub."""
    return {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": fake.url, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"}


@pytest.fixture
def config(tmp_path: Path) -> list[str]:
    file = tmp_path / "models.yaml"
    file.write_text(CONFIG.replace("FOLDER", str(tmp_path)).replace("COMMIT", COMMIT))
    return ["--config", str(file)]


def test_a_hub_id_is_fetched_and_its_folder_told(changes: dict[str, str], config: list[str]) -> None:
    """Progress on stderr, the folder on stdout; the engine finds the model there."""
    ended = run_command("pull", MODEL, *config, changes=changes)
    assert ended.returncode == 0, ended.stderr
    hub_id, folder = ended.stdout.strip().split(": ")
    assert hub_id == MODEL
    assert {file.name for file in Path(folder).iterdir()} == set(FILES)
    assert f"{MODEL}: complete, 3.0 MB" in ended.stderr
    program = f"from periscope.engine.loading.loader import find_on_disk; print(find_on_disk({MODEL!r}))"
    found = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], env=environment(changes), capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == folder


def test_a_name_brings_its_captioner_and_its_draft_model(changes: dict[str, str], config: list[str]) -> None:
    """What models.yaml says a model works with comes along; `--only` leaves it out."""
    alone = run_command("pull", "both", "--only", *config, changes=changes)
    assert [line.split(": ")[0] for line in alone.stdout.splitlines()] == [MODEL]
    ended = run_command("pull", "seeing", *config, changes=changes)
    assert [line.split(": ")[0] for line in ended.stdout.splitlines()] == [MODEL, EYES, DRAFT]


def test_json_is_one_object_a_line(changes: dict[str, str], config: list[str]) -> None:
    """Every line has the same keys; the bytes never go back and end at the total."""
    ended = run_command("pull", MODEL, "--json", *config, changes=changes)
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert {tuple(line) for line in lines} == {("schema_version", "status", "model", "total", "completed")}
    assert lines[0]["status"] == "planning"
    assert lines[-1] == {"schema_version": 1, "status": "done", "model": MODEL, "total": TOTAL, "completed": TOTAL}
    completed = [line["completed"] for line in lines]
    assert completed == sorted(completed)
    assert ended.stderr == ""


def test_ctrl_c_keeps_what_has_arrived(fake: FakeHub, changes: dict[str, str], config: list[str]) -> None:
    """130 at once although the hub is silent, a word on how to go on; the next pull asks for the rest only."""
    fake.hold_after[WEIGHTS] = 2_000_000
    with CommandProcess("pull", MODEL, *config, changes=changes) as pulling:
        pulling.wait_for(r"[12]\.\d MB of 3\.0 MB")
        assert fake.is_holding.wait(TIMEOUT_S)
        pulling.signal(signal.SIGINT)
        assert pulling.wait() == 130, pulling.output
        assert f"`periscope pull {MODEL}` goes on where it ended" in pulling.output
        assert "Traceback" not in pulling.output
    fake.hold_after.clear()
    assert run_command("pull", MODEL, *config, changes=changes).returncode == 0
    first, second = fake.sent_of(WEIGHTS)
    assert first == 0
    assert 1_000_000 < second <= 2_000_000


def test_the_revision_of_models_yaml_is_fetched(changes: dict[str, str], config: list[str]) -> None:
    """Under its name or its hub id: that is what `serve` looks for. `--revision` asks for another."""
    for name in ("pinned", "tiny/pinned"):
        ended = run_command("pull", name, *config, changes=changes)
        assert ended.stdout.strip().endswith(COMMIT), ended.stderr
    assert not list(Path(changes["HF_HOME"]).rglob("refs/main"))
    other = run_command("pull", "pinned", "--revision", "nonsense", *config, changes=changes)
    assert other.returncode == 4
    assert "has no revision nonsense" in other.stderr


@pytest.mark.parametrize(
    ("name", "told"), [("demo", "demo is part of Periscope"), ("folder", "folder is the folder /")]
)
def test_what_needs_no_fetching_is_said_so(
    changes: dict[str, str], config: list[str], fake: FakeHub, name: str, told: str
) -> None:
    """The embedded pair and folders: no error, no request."""
    ended = run_command("pull", name, *config, changes=changes)
    assert ended.returncode == 0
    assert told in ended.stderr
    assert fake.sent == []


def test_failures_are_sentences_with_codes(fake: FakeHub, changes: dict[str, str], config: list[str]) -> None:
    """Unknown names and models are 4; what the hub or this machine refuses is 1; never a traceback."""
    fake.refusals["tiny/pinned"] = Refusal(403, "GatedRepo")
    cases = [
        (["nonsense"], changes, 4, "There is no model 'nonsense' in"),
        (["nobody/nothing"], changes, 4, "has no model nobody/nothing"),
        (["pinned"], changes, 1, "is gated. Accept its terms"),
        ([MODEL], changes | {"HF_HUB_OFFLINE": "1"}, 1, "while HF_HUB_OFFLINE is set"),
        ([MODEL], changes | {"HF_ENDPOINT": "http://127.0.0.1:9"}, 1, "The hub cannot be reached"),
    ]
    for arguments, environment_changes, code, told in cases:
        ended = run_command("pull", *arguments, *config, changes=environment_changes)
        assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
        assert told in ended.stderr
        assert "Traceback" not in ended.stderr


PROGRESS = [
    PullProgress(MODEL, PullStatus.PLANNING),
    *(PullProgress(MODEL, PullStatus.DOWNLOADING, 10**9, done * 10**7, "Odd.") for done in range(30, 101)),
    PullProgress(MODEL, PullStatus.DONE, 10**9, 10**9, "Odd."),
]


def test_a_pull_without_a_terminal_is_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    """However many pieces come; what was here before counts, and an oddity is told once."""
    lines = PullLines()
    for progress in PROGRESS:
        lines.show(progress)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        f"{MODEL}: asking the hub",
        "Warning: Odd.",
        *(f"{MODEL}: {tenth}00.0 MB of 1.0 GB" for tenth in range(3, 10)),
        f"{MODEL}: complete, 1.0 GB",
    ]


def test_a_terminal_gets_one_bar_over_all_files() -> None:
    """Bytes of the whole model; what was here before is no speed."""
    screen = io.StringIO()
    bar = PullBar(Console(file=screen, force_terminal=True, width=120))
    for progress in PROGRESS:
        bar.show(progress)
    bar.close()
    shown = screen.getvalue()
    assert MODEL in shown
    assert "0.3/1.0 GB" in shown.replace("300.0/1000.0 MB", "0.3/1.0 GB")
    assert "1.0/1.0 GB" in shown
    assert shown.count("Warning: Odd.") == 1
