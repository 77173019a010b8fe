"""`periscope doctor`: each thing that can be wrong, on machines that the tests make up, and a real look at this one."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from periscope.cli.app import app
from periscope.cli.doctor.finding import Finding, Level
from periscope.cli.doctor.machine import Host, look_at_device, look_at_disk, look_at_packages
from periscope.cli.doctor.models import look_at_captioner, look_at_models, look_at_reader
from periscope.cli.doctor.server import look_at_agent, look_at_port
from periscope.config import Config, ModelConfig, load
from periscope.core import Footprint
from periscope.engine.device.facts import DeviceFacts
from periscope.errors import FilesMissing, ModelLoadError
from tests.service.fake_launchd import FakeClock, FakeLaunchd, mac

cli = CliRunner()
GIB = 1024**3
M4 = DeviceFacts("Apple M4", has_metal=True, recommended_bytes=11 * GIB, budget_bytes=10 * GIB)
MODELS = """\
models:
  - {name: talks, hf_id: a/talks, capabilities: {vision_mode: proxy, vision_proxy: {model: sees}}}
  - {name: sees, hf_id: a/sees}
  - {name: other, hf_id: a/other}
"""


def host(
    *,
    platform: str = "darwin",
    architecture: str = "arm64",
    mlx: str | None = "0.32.4",
    memory_gib: int = 16,
    sysctl: Mapping[str, str] | None = None,
) -> Host:
    values = sysctl or {}
    return Host(platform, architecture, "3.12.1", {"mlx": mlx}, memory_gib * GIB, values.get)


def levels(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.level.value for finding in findings}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "models.yaml"
    file.write_text(MODELS)
    return load(file, env={})


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (host(), {"python": "ok", "mlx": "ok"}),
        (host(architecture="x86_64"), {"python": "failure", "mlx": "ok"}),
        (host(platform="linux", architecture="x86_64"), {"python": "ok", "mlx": "ok"}),
        (host(mlx=None), {"python": "ok", "mlx": "failure"}),
    ],
)
def test_python_and_mlx(machine: Host, expected: dict[str, str]) -> None:
    """A Mac needs Python for arm64, and every system the MLX family."""
    findings = list(look_at_packages(machine))
    assert levels(findings) == expected
    assert all(finding.fix for finding in findings if finding.level is Level.FAILURE)


@pytest.mark.parametrize(
    ("machine", "device", "budget_bytes", "expected"),
    [
        (host(), None, None, {"metal": "failure"}),
        (host(), M4, None, {"metal": "ok", "memory": "ok", "wired limit": "skipped"}),
        (host(), M4, 12 * GIB, {"metal": "ok", "memory": "warning", "wired limit": "skipped"}),
        (host(memory_gib=7), M4, None, {"metal": "ok", "memory": "warning", "wired limit": "skipped"}),
        (
            host(sysctl={"iogpu.wired_limit_mb": "0"}),
            M4,
            None,
            {"metal": "ok", "memory": "ok", "wired limit": "ok"},
        ),
        (
            host(sysctl={"iogpu.wired_limit_mb": "4096"}),
            M4,
            None,
            {"metal": "ok", "memory": "ok", "wired limit": "warning"},
        ),
        (
            host(platform="linux"),
            DeviceFacts("cpu", has_metal=False, recommended_bytes=None, budget_bytes=GIB),
            None,
            {"metal": "warning", "memory": "ok", "wired limit": "skipped"},
        ),
        (
            host(),
            DeviceFacts("cpu", has_metal=False, recommended_bytes=None, budget_bytes=GIB),
            None,
            {"metal": "failure", "memory": "ok", "wired limit": "skipped"},
        ),
    ],
)
def test_metal_and_memory(
    machine: Host, device: DeviceFacts | None, budget_bytes: int | None, expected: dict[str, str]
) -> None:
    """What Metal has, what models may take of it, and a wired limit that is below that."""
    findings = list(look_at_device(machine, device, budget_bytes))
    assert levels(findings) == expected
    assert all(finding.fix for finding in findings if finding.level in (Level.FAILURE, Level.WARNING))


def measured(sizes: Mapping[str, int | Exception]) -> Callable[[ModelConfig], Footprint]:
    def measure(model: ModelConfig) -> Footprint:
        size = sizes[model.name]
        if isinstance(size, Exception):
            raise size
        return Footprint(size, 1)

    return measure


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"talks": 5, "sees": 5, "other": 95}, {"model talks": "ok", "model sees": "ok", "model other": "ok"}),
        (
            {"talks": ModelLoadError("not here"), "sees": 5, "other": ModelLoadError("not here")},
            {"model talks": "failure", "model sees": "ok", "models": "warning"},
        ),
        (
            {"talks": 5, "sees": PermissionError(1, "Operation not permitted", "config.json"), "other": 5},
            {"model talks": "ok", "model sees": "failure", "model other": "ok"},
        ),
        ({"talks": 200, "sees": 5, "other": 5}, {"model talks": "failure", "model sees": "ok", "model other": "ok"}),
        (
            {"talks": 60, "sees": 60, "other": 5},
            {"model talks": "ok", "model sees": "ok", "model other": "ok", "models": "warning"},
        ),
    ],
)
def test_models(config: Config, sizes: dict[str, int | Exception], expected: dict[str, str]) -> None:
    """The default model and its captioner must be here, readable and small enough; of others it is only told."""
    findings = list(look_at_models(config, measured(sizes), budget_bytes=100))
    assert levels(findings) == expected
    assert all(finding.fix for finding in findings if finding.level in (Level.FAILURE, Level.WARNING))


def test_why_a_model_cannot_be_used_and_what_to_do_are_said_apart(config: Config) -> None:
    """The error's own advice is the fix, and is not said twice."""
    told = ModelLoadError("a/talks-3.2 is not on this disk. Fetch it with `periscope pull a/talks-3.2`.")
    first, *_ = look_at_models(config, measured({"talks": told, "sees": 5, "other": 5}), budget_bytes=100)
    assert (first.said, first.fix) == ("a/talks-3.2 is not on this disk", "Fetch it with `periscope pull a/talks-3.2`.")


def test_a_missing_model_is_pulled_by_the_name_it_has_here(config: Config) -> None:
    """As serve, ask and show say it: so its captioner comes with it."""
    told = FilesMissing("a/talks is not on this disk.", pulled="a/talks")
    first, *_ = look_at_models(config, measured({"talks": told, "sees": 5, "other": 5}), budget_bytes=100)
    assert first.fix == "Fetch it with `periscope pull talks`."


def test_captioner_reader_and_disk(config: Config, tmp_path: Path) -> None:
    """The pair is named; a model without a captioner and a disk without room are a warning with a fix."""
    assert look_at_captioner(config).said == "sees for talks"
    assert look_at_reader(config).level in (Level.OK, Level.WARNING)
    file = tmp_path / "blind.yaml"
    file.write_text("models:\n  - {name: blind, hf_id: a/blind}\n")
    blind = load(file, env={})
    assert look_at_captioner(blind).level is Level.WARNING
    assert look_at_reader(blind).level is Level.SKIPPED
    assert look_at_disk(tmp_path, 1000).level is Level.WARNING
    assert look_at_disk(tmp_path, 10**12).level is Level.OK


def test_a_port_that_another_program_holds_is_a_failure(tmp_path: Path) -> None:
    """With the command that names the program; a free port is fine."""
    file = tmp_path / "models.yaml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file.write_text(f"server: {{port: {port}}}\n{MODELS}")
        held = look_at_port(load(file, env={}))
    assert held.level is Level.FAILURE
    assert f"lsof -nP -iTCP:{port}" in (held.fix or "")
    assert look_at_port(load(file, env={"PERISCOPE_SERVER__PORT": "0"})).level is Level.OK


def test_the_agent_on_a_mac(tmp_path: Path) -> None:
    """None is fine, too; on other systems there is nothing to look at."""
    machine = mac(tmp_path, FakeLaunchd(FakeClock()))
    assert look_at_agent(machine).level is Level.OK
    assert "service install" in look_at_agent(machine).said


def test_this_machine_is_fit_for_the_demo_pair() -> None:
    """Everything is looked at for real, and what is found has stable keys."""
    ended = cli.invoke(app, ["doctor", "--json"])
    told = json.loads(ended.stdout)
    assert list(told) == ["schema_version", "is_fit", "findings"]
    found = {finding["check"]: finding["level"] for finding in told["findings"]}
    assert {"python", "mlx", "metal", "memory", "disk", "configuration", "captioner", "port", "launchd"} <= set(found)
    assert (found["model demo"], found["model demo-captioner"]) == ("ok", "ok")
    assert told["is_fit"] == (ended.exit_code == 0)


def test_a_file_with_one_model_is_told_so(tmp_path: Path) -> None:
    """In the line of the configuration."""
    file = tmp_path / "models.yaml"
    file.write_text("models:\n  - {name: blind, hf_id: a/blind}\n")
    assert "models.yaml: 1 model\n" in cli.invoke(app, ["doctor", "--config", str(file)]).stdout


def test_a_file_that_cannot_be_used_is_told_and_ends_with_1(tmp_path: Path) -> None:
    """The other checks are made all the same, and the line that is wrong is named."""
    file = tmp_path / "models.yaml"
    file.write_text("modles: []\n")
    ended = cli.invoke(app, ["doctor", "--config", str(file)])
    assert ended.exit_code == 1
    assert "FAIL  configuration: " in ended.stdout
    assert "modles" in ended.stdout
    assert "disk: " in ended.stdout
