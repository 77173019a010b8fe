"""`periscope config`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from periscope.cli.app import app
from periscope.cli.config import table

cli = CliRunner()

GOOD = """\
idle_unload_secs: 60
server:
  port: 8000
  api_key: secret
models:
  - name: one
    hf_id: some/model
"""
BAD = """\
models:
  - name: one
    hf_id: some/model
    prelaod: true
  - name: one
    hf_id: other/model
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "models.yaml"
    file.write_text(GOOD)
    return file


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "broken.yaml"
    file.write_text(BAD)
    return file


def test_validate_counts_the_models(good: Path) -> None:
    """A file that can be used: one line, exit 0."""
    ended = cli.invoke(app, ["config", "validate", str(good)])
    assert (ended.exit_code, ended.stdout) == (0, f"{good} is valid: 1 model\n")


def test_validate_takes_the_file_as_the_other_commands_do(good: Path, bad: Path) -> None:
    """`--config` means the same everywhere; a file that is named twice must be the same one."""
    ended = cli.invoke(app, ["config", "validate", "--config", str(good)])
    assert (ended.exit_code, ended.stdout) == (0, f"{good} is valid: 1 model\n")
    assert cli.invoke(app, ["config", "validate", "--config", str(bad)]).exit_code == 78
    assert cli.invoke(app, ["config", "validate", str(good), "--config", str(good)]).exit_code == 0
    ended = cli.invoke(app, ["config", "validate", str(good), "--config", str(bad)])
    assert ended.exit_code == 2
    assert "name one" in ended.stderr


def test_validate_names_every_problem_with_its_line(bad: Path) -> None:
    """A file that cannot be used: all problems on stderr with line and nearest key, exit 78."""
    ended = cli.invoke(app, ["config", "validate", str(bad)])
    assert (ended.exit_code, ended.stdout) == (78, "")
    assert "broken.yaml:4" in ended.stderr
    assert "preload" in ended.stderr
    assert "broken.yaml:5" in ended.stderr


def test_validate_as_json_holds_the_problems_under_the_same_exit_codes(good: Path, bad: Path) -> None:
    """A script reads one object on stdout whether the file can be used or not."""
    ended = cli.invoke(app, ["config", "validate", str(good), "--json"])
    assert ended.exit_code == 0
    valid = {"schema_version": 1, "path": str(good), "valid": True, "problems": [], "warnings": []}
    assert json.loads(ended.stdout) == valid
    ended = cli.invoke(app, ["config", "validate", str(bad), "--json"])
    said = json.loads(ended.stdout)
    assert (ended.exit_code, said["path"], said["valid"]) == (78, str(bad), False)
    assert "\n".join(said["problems"]) == ended.stderr.strip()


def test_validate_warns_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """With its line, and exit 0: the disk that it is on may be away for now, and the other models can be served."""
    file = tmp_path / "models.yaml"
    file.write_text("models:\n  - {name: here, local_path: .}\n  - name: away\n    local_path: ./nowhere\n")
    ended = cli.invoke(app, ["config", "validate", str(file), "--json"])
    (warning,) = json.loads(ended.stdout)["warnings"]
    assert (ended.exit_code, ended.stderr) == (0, f"warning: {warning}\n")
    assert f"models.yaml:4: models[1].local_path names no folder: {tmp_path / 'nowhere'}" in warning


def test_show_tells_where_each_value_comes_from(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flag over environment over file over default, each named beside its value."""
    monkeypatch.setenv("PERISCOPE_SERVER__HEARTBEAT_S", "5")
    shown = cli.invoke(app, ["config", "show", "--config", str(good), "--host", "::1"])
    rows = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines()}
    assert rows["server.host"] == ["::1", "flag", "--host"]
    assert rows["server.heartbeat_s"] == ["5.0", "env", "PERISCOPE_SERVER__HEARTBEAT_S"]
    assert rows["server.port"][0] == "8000"
    assert rows["server.port"][1].endswith("models.yaml:3")
    assert rows["server.cors_origins"] == ["[]", "default"]


def test_show_keeps_the_api_key_to_itself(good: Path) -> None:
    """Neither the table nor the JSON prints the key."""
    for form in ([], ["--json"]):
        assert "secret" not in cli.invoke(app, ["config", "show", "--config", str(good), *form]).output


def test_show_as_json_is_one_object(good: Path) -> None:
    """`--json` holds the file and the settings."""
    told = json.loads(cli.invoke(app, ["config", "show", "--config", str(good), "--json"]).stdout)
    assert list(told) == ["schema_version", "path", "settings"]
    assert told["path"] == str(good)
    assert {"key": "models[0].name", "value": "one"}.items() <= next(
        row.items() for row in told["settings"] if row["key"] == "models[0].name"
    )


def test_a_missing_file_is_a_configuration_problem(tmp_path: Path) -> None:
    """`--config` that names no file ends with 78 and says so."""
    ended = cli.invoke(app, ["config", "show", "--config", str(tmp_path / "none.yaml")])
    assert ended.exit_code == 78
    assert "none.yaml" in ended.stderr


def test_schema_is_json() -> None:
    """`config schema` prints a JSON schema that knows the models."""
    assert "models" in json.loads(cli.invoke(app, ["config", "schema"]).stdout)["properties"]


def test_a_long_value_does_not_push_the_others_aside() -> None:
    """Columns are as wide as what is in them, up to a limit."""
    lines = table([("k", "v", "s"), ("key", "x" * 100, "far"), ("other", "1", "near")])
    assert lines[2] == "other  1" + " " * 47 + "  near"


def test_init_writes_a_file_that_can_be_used(tmp_path: Path) -> None:
    """For this machine, or for one of a size that is named; an existing file is replaced only by force."""
    file = tmp_path / "new" / "models.yaml"
    written = cli.invoke(app, ["config", "init", "--output", str(file)])
    assert written.exit_code == 0, written.output
    assert written.stdout.startswith(f"Wrote {file}.\n")
    assert cli.invoke(app, ["config", "validate", str(file)]).exit_code == 0
    again = cli.invoke(app, ["config", "init", "--output", str(file), "--memory", "16GB"])
    assert (again.exit_code, again.stdout) == (1, "")
    assert "--force" in again.stderr
    assert cli.invoke(app, ["config", "init", "-o", str(file), "--memory", "16GB", "--force"]).exit_code == 0
    assert "Qwen3-4B" in file.read_text()


def test_init_says_how_to_name_the_file_where_another_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder with a models.yaml, which goes before the user's own; elsewhere nothing need be named."""
    home, other = tmp_path / "my home", tmp_path / "here" / "models.yaml"
    monkeypatch.setenv("PERISCOPE_HOME", str(home))
    other.parent.mkdir()
    monkeypatch.chdir(other.parent)
    command = ["config", "init", "--memory", "16GB", "--force"]
    assert cli.invoke(app, command).stdout.splitlines()[1:] == ["Next: periscope pull qwen3-4b && periscope serve"]
    other.write_text("models: [{name: demo, local_path: 'embedded:text'}]\n")
    named = f"--config '{home}/models.yaml'"
    assert cli.invoke(app, command).stdout.splitlines()[1:] == [
        f"Commands that name no file read {other} here.",
        f"Next: periscope pull qwen3-4b {named} && periscope serve {named}",
    ]


def test_init_can_be_rehearsed_and_told_in_json() -> None:
    """Nothing is written; the pairs come with their reasons; a size that is none is a usage error."""
    told = json.loads(cli.invoke(app, ["config", "init", "--dry-run", "--json", "--memory", "64GB"]).stdout)
    assert (told["path"], told["pairs"][0]["name"]) == (None, "qwen3-30b")
    assert told["budget_bytes"] < told["memory_bytes"] == 64 * 1024**3
    for same in ("64GB", "64gb", "64GiB"):  # memory is sold in powers of 1024
        assert cli.invoke(app, ["config", "init", "--dry-run", "--memory", same]).stdout == told["text"]
    assert cli.invoke(app, ["config", "init", "--dry-run", "--memory", "lots"]).exit_code == 2


def test_show_names_the_authors_sampling(tmp_path: Path) -> None:
    """Where the file leaves it open, and the model is on this disk."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "generation_config.json").write_text('{"temperature": 0.6, "top_k": 20}')
    file = tmp_path / "models.yaml"
    file.write_text("models:\n  - name: one\n    local_path: model\n    params: {top_k: 3}\n")
    ended = cli.invoke(app, ["config", "show", "--config", str(file), "--json"])
    rows = {row["key"]: (row["value"], row["source"]) for row in json.loads(ended.stdout)["settings"]}
    assert rows["models[0].params.temperature"] == (0.6, "generation_config.json")
    assert rows["models[0].params.top_k"][0] == 3
    assert "models.yaml" in rows["models[0].params.top_k"][1]
    assert rows["models[0].params.top_p"] == (None, "default")
