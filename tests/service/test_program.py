"""Which path of the program the plist gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from periscope.service import Machine, ServiceFailed, stable_program
from periscope.service.advice import warnings_for
from periscope.service.agent import AgentPaths
from periscope.service.plist import AgentSpec
from periscope.service.program import is_versioned


def script(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_installer_s_link_is_preferred_to_the_environment(machine: Machine) -> None:
    """Installers rebuild the environment at an upgrade; their link stays, however the command was called."""
    link = machine.home / ".local/bin/periscope"
    for invoked in (link, link.resolve()):
        assert stable_program(replace(machine, invoked=str(invoked))) == link


def test_a_link_to_another_installation_is_not_taken(machine: Machine, tmp_path: Path) -> None:
    """Whoever runs `install` from a checkout gets the checkout."""
    checkout = script(tmp_path / "checkout/.venv/bin/periscope")
    assert stable_program(replace(machine, invoked=str(checkout))) == checkout


def test_python_m_finds_the_program_beside_its_interpreter(machine: Machine, tmp_path: Path) -> None:
    """`python -m periscope` has no program of that name as its first argument."""
    program = script(tmp_path / "venv/bin/periscope")
    found = stable_program(replace(machine, invoked="/x/__main__.py", interpreter=program.parent / "python3"))
    assert found == program


def test_a_name_is_looked_up_in_the_path(machine: Machine, tmp_path: Path) -> None:
    """Some shells pass the name alone; a link in PATH that leads there is taken as it is, unresolved."""
    program = script(tmp_path / "Cellar/periscope/0.1.0/bin/periscope")
    link = tmp_path / "prefix/bin/periscope"
    link.parent.mkdir(parents=True)
    link.symlink_to(program)
    env = {"PATH": str(link.parent)}
    assert stable_program(replace(machine, invoked="periscope", env=env)) == link
    assert stable_program(replace(machine, invoked=str(program), env=env)) == link


def test_a_temporary_environment_is_refused(machine: Machine, tmp_path: Path) -> None:
    """`uvx periscope service install` would leave an agent whose program uv removes."""
    program = script(tmp_path / "cache/uv/archive-v0/Zx81/bin/periscope")
    with pytest.raises(ServiceFailed, match="uv tool install"):
        stable_program(replace(machine, invoked=str(program)))


def test_a_program_that_was_named_is_taken_if_it_can_run(machine: Machine, tmp_path: Path) -> None:
    """Else it is refused before launchd would fail to start it."""
    program = script(tmp_path / "wrapper")
    assert stable_program(machine, program) == program
    for wrong in (tmp_path / "none", tmp_path):
        with pytest.raises(ServiceFailed, match="--program"):
            stable_program(machine, wrong)


def test_no_program_at_all_is_told(machine: Machine, tmp_path: Path) -> None:
    """With the command that installs one."""
    with pytest.raises(ServiceFailed, match="uv tool install mlx-periscope"):
        stable_program(replace(machine, invoked="pytest", interpreter=tmp_path / "python"))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/opt/homebrew/Cellar/periscope/0.1.0/bin/periscope", True),
        ("/Users/u/.pyenv/versions/3.12.1/bin/periscope", True),
        ("/opt/homebrew/opt/python@3.12/bin/periscope", True),
        ("/opt/homebrew/opt/periscope/bin/periscope", False),
        ("/Users/u/.local/bin/periscope", False),
    ],
)
def test_paths_with_versions_are_seen(path: str, expected: bool) -> None:
    """They may be gone after an upgrade."""
    assert is_versioned(Path(path)) is expected


def test_what_may_go_wrong_later_is_told_at_the_installation() -> None:
    """Guarded folders, versions in paths and variables that launchd will not see, by name and never by value."""
    home = Path("/Users/u")
    spec = AgentSpec(home / ".pyenv/versions/3.12.1/bin/periscope", AgentPaths(home), home / "Documents/models.yaml")
    env = {"PERISCOPE_SERVER__API_KEY": "hush", "HF_TOKEN": "hush", "HF_HOME": "/Volumes/x", "PERISCOPE_CONFIG": "c"}
    told = list(warnings_for(spec, env))
    assert [sentence.split()[0] for sentence in told] == [str(spec.program), "macOS", "The"]
    assert "will not see HF_TOKEN, PERISCOPE_SERVER__API_KEY:" in told[-1]
    assert "hush" not in "".join(told)
    assert list(warnings_for(AgentSpec(home / ".local/bin/periscope", AgentPaths(home)), {"HF_HOME": "/hf"})) == []


def test_a_moved_home_is_told_at_the_installation() -> None:
    """The agent keeps its state where launchd's environment has it, so commands of this shell would look elsewhere."""
    home = Path("/Users/u")
    spec = AgentSpec(home / ".local/bin/periscope", AgentPaths(home))
    (told,) = warnings_for(spec, {"PERISCOPE_HOME": "/Volumes/hush"})
    assert "will not see PERISCOPE_HOME" in told
    assert "Unset it" in told
    assert "hush" not in told
