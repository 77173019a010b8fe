"""The wheel, as it is built and installed: its command serves, from its own files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.e2e.conftest import start_server

ROOT = Path(__file__).resolve().parents[2]
#: `make try-wheel`: what the wheel depends on is installed with it; else it is that of the tests.
WITH_DEPENDENCIES = os.environ.get("WHEEL_WITH_DEPENDENCIES") == "1"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment in which the wheel is all there is of Periscope."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)])
    (wheel,) = folder.glob("mlx_periscope-*.whl")
    venv = folder / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", str(venv)])
    dependencies = [] if WITH_DEPENDENCIES else ["--no-deps"]
    run([*pip, "--python", str(venv / "bin/python"), "install", *dependencies, str(wheel)])
    if not WITH_DEPENDENCIES:  # after its own packages; the .pth file there that leads to the sources is not read
        (site_packages,) = venv.glob("lib/python*/site-packages")
        (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return venv


def run(command: list[str], cwd: Path | None = None) -> str:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=kept, cwd=cwd)  # noqa: S603
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_an_installed_wheel_serves(environment: Path, tmp_path: Path) -> None:
    """With the models.yaml and the demo pair that are inside, and no file of the repository."""
    periscope = str(environment / "bin/periscope")
    told = json.loads(run([periscope, "config", "show", "--json"], cwd=tmp_path))
    assert Path(told["path"]).is_relative_to(environment)
    server = start_server(log=tmp_path / "log", program=[periscope], changes={"PYTHONPATH": ""}, cwd=tmp_path)
    asked = [periscope, "ask", "What colour is a red circle?", "--url", server.url, "--json"]
    answer = json.loads(run(asked, cwd=tmp_path))
    assert answer["finish_reason"] == "stop"
    assert answer["answer"]
    assert server.stop() == 0


def test_the_package_says_that_it_is_typed(environment: Path) -> None:
    """`py.typed` is in it, and neither tests nor training recipes are."""
    (package,) = environment.glob("lib/python*/site-packages/periscope")
    assert (package / "py.typed").exists()
    assert not list(package.parent.glob("training*"))
    assert not list(package.parent.glob("tests*"))
