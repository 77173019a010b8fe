"""Which configuration file is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from periscope.config import find_file, load
from periscope.errors import ConfigError
from tests.config.files import ONE

PLACES = [
    "asked.yaml",
    "env.yaml",
    "cwd/models.yaml",
    "own/models.yaml",
    "home/.config/periscope/models.yaml",
    "checkout/backend/periscope/models.yaml",
    "checkout/models.yaml",
]


@pytest.fixture
def places(tmp_path):
    """A file in every place that is searched."""
    for place in PLACES:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(ONE)
    (tmp_path / "checkout/backend/periscope").mkdir(parents=True, exist_ok=True)
    return tmp_path


def find(root: Path, *, path: str | None = None, env: dict[str, str] | None = None) -> str:
    """The place below the root that is found."""
    found = find_file(
        Path(path) if path else None,
        env or {},
        cwd=root / "cwd",
        home=root / "home",
        package=root / "checkout/backend/periscope",
    )
    return str(found.relative_to(root))


def test_the_first_place_that_has_a_file_wins(places):
    """The order is: flag, variable, working directory, own home, user's configuration, package, checkout."""
    path, env = "../asked.yaml", {"PERISCOPE_CONFIG": "../env.yaml", "PERISCOPE_HOME": str(places / "own")}
    assert find(places, path=path, env=env) == "asked.yaml"
    assert find(places, env=env) == "env.yaml"
    env["PERISCOPE_CONFIG"] = ""
    for place in PLACES[2:]:
        assert find(places, env=env) == place
        (places / place).unlink()
    with pytest.raises(ConfigError, match="is nowhere to be found"):
        find(places, env=env)


@pytest.mark.parametrize(
    ("path", "env", "origin"),
    [("x.yaml", {}, "flag --config"), (None, {"PERISCOPE_CONFIG": "x.yaml"}, "env PERISCOPE_CONFIG")],
)
def test_a_file_that_was_asked_for_must_exist(places, path, env, origin):
    """No other file is read in place of a named one."""
    with pytest.raises(ConfigError) as caught:
        find(places, path=path, env=env)
    assert caught.value.problems == (f"{origin}: there is no file {places / 'cwd/x.yaml'}",)


def test_the_shipped_file_is_found_without_any_other(tmp_path):
    """Without any configuration, the file of the package or of the checkout is used."""
    config = load(None, {}, {}, cwd=tmp_path, home=tmp_path)
    assert config.path.name == "models.yaml"
    assert config.default_model.name == "demo"


def test_messages_call_the_file_as_briefly_as_is_clear(places):
    """Paths below the working directory or the home are relative to it, others are absolute."""
    for path, cwd, label in [
        ("cwd/models.yaml", "cwd", "models.yaml"),
        ("home/.config/periscope/models.yaml", "cwd", "~/.config/periscope/models.yaml"),
        ("asked.yaml", "cwd", str(places / "asked.yaml")),
    ]:
        config = load(places / path, {}, {}, cwd=places / cwd, home=places / "home")
        assert config.sources["models[0].name"] == f"{label}:1"


def test_an_unknown_flag_is_a_mistake_of_the_caller(places):
    """It is not a ConfigError, because it is a bug of the command line."""
    with pytest.raises(TypeError, match="prot"):
        load(places / "asked.yaml", {}, {"prot": 1})


def test_a_directory_is_not_a_file(tmp_path):
    """A directory called models.yaml is skipped."""
    (tmp_path / "models.yaml").mkdir()
    with pytest.raises(ConfigError, match="there is no file"):
        load(tmp_path / "models.yaml", {}, {}, cwd=tmp_path, home=tmp_path)
