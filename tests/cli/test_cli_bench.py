"""`periscope bench`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from periscope.bench.random_model import write_random_model
from periscope.cli.app import app
from periscope.cli.bench import rows_of
from periscope.cli.exits import CommandFailed
from tests.bench.conftest import TINY
from tests.tiny_models import write_text_model

cli = CliRunner()
QUICK = ["--rounds", "1", "--max-tokens", "4", "--prompt-words", "10", "--at-once", "1,2"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_text_model(tmp_path_factory.mktemp("models") / "tiny"))


def test_engine_prints_a_table_and_writes_a_file(model: str, tmp_path: Path) -> None:
    """The table is for people, the file has every sample; progress is on stderr."""
    file = tmp_path / "out.json"
    ended = cli.invoke(app, ["bench", "engine", "--model", model, *QUICK, "--json", str(file)])
    assert ended.exit_code == 0, ended.stderr
    assert all(words in ended.stdout for words in ("at once", "decode tok/s", "CPU ms/tok", "raw", "engine", "mlx-lm"))
    assert ended.stderr.splitlines() == ["warming up", "round 1 of 1"]
    told = json.loads(file.read_text())
    assert told["schema_version"] == 1
    assert {(sample["contender"], sample["num_rows"]) for sample in told["samples"]} == {
        (name, rows) for name in ("raw", "engine") for rows in (1, 2)
    }


def test_json_on_stdout_is_nothing_but_json(model: str) -> None:
    """So that it can be piped; the table goes to stderr."""
    ended = cli.invoke(app, ["bench", "engine", "--model", model, *QUICK, "--json", "-"])
    assert json.loads(ended.stdout)["settings"]["num_rows"] == [1, 2]
    assert "decode tok/s" in ended.stderr


def test_a_quick_run_is_one_table(model: str, tmp_path: Path) -> None:
    """Of the model that is asked for, ragged requests among them; options go before what --quick would have."""
    file = tmp_path / "out.json"
    ended = cli.invoke(app, ["bench", "engine", "--quick", "--model", model, *QUICK, "--json", str(file)])
    assert ended.exit_code == 0, ended.stderr
    assert all(words in ended.stdout for words in ("at once", "CPU ms/tok", "2, ragged", "2, arriving"))
    (report,) = json.loads(file.read_text())["reports"]
    settings = report["settings"]
    assert (settings["is_ragged"], settings["max_tokens"], settings["prompt_words"]) == (True, 4, 10)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["--quick", "--pictures"], "add --turns"),
        (["--gguf", __file__], "add --peers"),
        (["--peers", "--gguf", "/nowhere.gguf"], "--gguf"),
        (["--time-limit", "0"], "--time-limit"),
    ],
)
def test_options_that_would_do_nothing_are_refused(asked: list[str], words: str) -> None:
    """A usage error that names the option, before anything is started."""
    ended = cli.invoke(app, ["bench", "serve", *asked])
    assert ended.exit_code == 2
    assert words in ended.stderr


def test_neighbours_prints_a_table_and_writes_a_file(tmp_path: Path) -> None:
    """Every figure with its unit; the file has one sample per round after the warm-up."""
    file, model = tmp_path / "out.json", write_random_model(tmp_path / "words", TINY)
    asked = ["--rounds", "1", "--prompt-tokens", "40", "--json", str(file)]
    ended = cli.invoke(app, ["bench", "neighbours", "--model", str(model), *asked])
    assert ended.exit_code == 0, ended.stderr
    assert all(words in ended.stdout for words in ("ordinary step", "longest gap", "first token", " steps ", " ms "))
    assert ended.stderr.splitlines() == ["warming up", "round 1 of 1"]
    told = json.loads(file.read_text())
    (sample,) = told["samples"]
    assert 40 < sample["num_prompt_tokens"] < 60
    assert sample["longest_gap_steps"] >= sample["p99_gap_steps"] > 0
    assert sample["joined_longest_gap_steps"] >= sample["joined_step_steps"] > 0
    assert all(figure["value"] is not None for figure in told["figures"])
    assert told["model"]["shape"]["num_hidden_layers"] == 2


def test_a_prompt_beyond_the_models_context_is_a_sentence(model: str) -> None:
    """It names the option and the most it may be."""
    ended = cli.invoke(app, ["bench", "neighbours", "--model", model, "--prompt-tokens", "4000"])
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "--prompt-tokens 4000 does not fit" in ended.stderr


@pytest.mark.parametrize("wrong", ["", "0", "1,", "1,x", "-4", "1,513"])
def test_batch_sizes_are_checked_before_anything_is_loaded(wrong: str) -> None:
    """A usage error that says what is wanted."""
    ended = cli.invoke(app, ["bench", "serve", f"--at-once={wrong}"])
    assert ended.exit_code == 2
    assert "numbers from 1 to 512" in ended.stderr


def test_batch_sizes_keep_their_order() -> None:
    """Each once."""
    assert rows_of("4, 1,4,16") == (4, 1, 16)
    with pytest.raises(CommandFailed):
        rows_of("four")


def test_a_model_that_is_not_here_is_a_sentence() -> None:
    """Not a traceback."""
    ended = cli.invoke(app, ["bench", "engine", "--model", "./nowhere"])
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "no folder ./nowhere" in ended.stderr


def test_a_model_of_a_server_needs_the_server() -> None:
    """`--model` alone names nothing."""
    ended = cli.invoke(app, ["bench", "caption", "--model", "demo"])
    assert ended.exit_code == 2
    assert "--url" in ended.stderr


def test_a_server_that_does_not_run_is_told() -> None:
    """Exit code 3, as for every command."""
    ended = cli.invoke(app, ["bench", "caption", "--url", "http://127.0.0.1:1"])
    assert ended.exit_code == 3
