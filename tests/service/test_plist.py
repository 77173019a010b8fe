"""The agent's definition."""

from __future__ import annotations

import plistlib
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.service import AgentPaths, AgentSpec, ServiceFailed, definition_of, render
from periscope.service.plist import config_of, faults_of, read, spec_of

ROOT = Path(__file__).resolve().parents[2]
HOME = Path("/Users/sample")
SAMPLE = AgentSpec(HOME / ".local/bin/periscope", AgentPaths(HOME), HOME / ".config/periscope/models.yaml")


def test_the_keys_that_decide_speed_and_restarts() -> None:
    """Interactive, since launchd slows the rest; back after a crash alone; time to end; no octal umask."""
    definition = definition_of(SAMPLE)
    assert definition["ProcessType"] == "Interactive"
    assert definition["KeepAlive"] == {"SuccessfulExit": False}
    assert definition["ExitTimeOut"] == 30
    assert definition["SoftResourceLimits"] == {"NumberOfFiles": 4096}
    assert definition["Umask"] == 63
    assert definition["ProgramArguments"] == [
        "/Users/sample/.local/bin/periscope",
        "serve",
        "--config",
        "/Users/sample/.config/periscope/models.yaml",
    ]


def test_the_server_s_last_deadline_is_before_launchd_s() -> None:
    """The server ends with 0 by itself; launchd's kill would count as a crash."""
    from periscope.cli.stopping import STOP_DEADLINE_S

    assert definition_of(SAMPLE)["ExitTimeOut"] >= STOP_DEADLINE_S + 5


@given(
    st.text(st.characters(exclude_categories=["C"]), min_size=1),
    st.one_of(st.none(), st.text(st.characters(exclude_categories=["C"]), min_size=1)),
)
def test_a_rendered_plist_is_read_back_as_it_was(name: str, config: str | None) -> None:
    """Whatever the paths are called."""
    spec = AgentSpec(Path("/", name), AgentPaths(Path("/Users", name)), Path("/", config) if config else None, "/hf")
    definition = definition_of(spec)
    assert plistlib.loads(render(definition)) == definition
    assert spec_of(definition, spec.paths) == spec
    assert config_of(definition) == spec.config


def test_a_path_that_xml_cannot_carry_is_refused() -> None:
    """In one sentence, before anything is written."""
    with pytest.raises(ServiceFailed, match="cannot be written as a plist"):
        render(definition_of(AgentSpec(Path("/bin/a\x01b"), AgentPaths(HOME))))


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (AgentSpec(Path("bin/periscope"), AgentPaths(HOME)), "The program must be an absolute path"),
        (AgentSpec(Path("/bin/p"), AgentPaths(HOME), Path("~/models.yaml")), "--config must be an absolute path"),
        (AgentSpec(Path("/bin/p"), AgentPaths(HOME), hf_home="~/hf"), "HF_HOME must be an absolute path"),
        (AgentSpec(Path("/bin/p"), AgentPaths(HOME), hf_home="/hf_abcdefghijkl"), "looks like a secret"),
    ],
)
def test_what_launchd_would_not_understand_is_refused(spec: AgentSpec, told: str) -> None:
    """No ~ and no variable is expanded by launchd, and other users can read the file."""
    with pytest.raises(ServiceFailed, match=told):
        definition_of(spec)


@pytest.mark.parametrize(
    "change",
    [
        {"RunAtLoad": 1},
        {"Umask": True},
        {"ProcessType": "Background"},
        {"ExitTimeOut": "30"},
        {"Nice": 5},
        {"EnvironmentVariables": {"PATH": "/bin", "N": 1}},
        {"EnvironmentVariables": {"OPENAI_API_KEY": "x"}},
        {"ProgramArguments": ["/bin/p", "serve", "sk-abcdefghijklmnop"]},
    ],
)
def test_a_wrong_key_is_found(change: dict[str, Any]) -> None:
    """Types as launchd tells them apart, unknown keys, slow process types and secrets."""
    assert faults_of(definition_of(SAMPLE)) == ()
    assert faults_of(definition_of(SAMPLE) | change)


def test_a_file_that_is_no_plist_is_no_definition() -> None:
    """Somebody's half-written file is replaced, not stumbled over."""
    assert read(None) is None
    assert read(b"") is None
    assert read(b"<plist><dict>") is None
    assert read(plistlib.dumps(["a list"])) is None


def test_the_documented_template_is_what_is_rendered() -> None:
    """`launchd/` shows the plist of a sample home, with comments; without them it is the same, byte for byte."""
    template = (ROOT / "launchd/local.periscope.server.plist").read_text(encoding="utf-8")
    bare = re.sub(r"^[ \t]*<!--.*?-->\n", "", template, flags=re.MULTILINE | re.DOTALL)
    assert bare != template
    assert bare.encode() == render(definition_of(SAMPLE))


def test_every_key_is_explained() -> None:
    """`launchd/README.md` has a row for each key of the plist."""
    page = (ROOT / "launchd/README.md").read_text(encoding="utf-8")
    assert [key for key in definition_of(SAMPLE) if f"| `{key}`" not in page] == []
