"""A tiny model that never ends by itself, the models.yaml that serves it, and one running server over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.process import ServeProcess
from tests.tiny_models import write_text_model

#: At temperature 0 the model of seed 0 repeats itself until its context is full, which takes minutes.
ENDLESS_CONTEXT = 60_000


def write_config(folder: Path, model: Path, extra: str = "") -> Path:
    """A models.yaml with one blind model called tiny."""
    file = folder / "models.yaml"
    file.write_text(
        f"{extra}models:\n  - name: tiny\n    local_path: {model}\n    preload: true\n    params: {{temperature: 0}}\n"
    )
    return file


@pytest.fixture(scope="session")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text model that goes on and on."""
    folder = tmp_path_factory.mktemp("models") / "endless"
    return write_text_model(folder, seed=0, context_length=ENDLESS_CONTEXT)


@pytest.fixture(scope="session")
def endless_config(tmp_path_factory: pytest.TempPathFactory, endless_model: Path) -> Path:
    """Its models.yaml; the port in it is one where nobody listens."""
    return write_config(tmp_path_factory.mktemp("config"), endless_model, "server: {port: 1}\n")


@pytest.fixture(scope="session")
def short_config(tmp_path_factory: pytest.TempPathFactory, endless_model: Path) -> Path:
    """The same model, with answers of 24 tokens."""
    file = write_config(tmp_path_factory.mktemp("config"), endless_model, "server: {port: 1}\n")
    file.write_text(file.read_text().replace("temperature: 0", "temperature: 0, max_tokens: 24"))
    return file


@pytest.fixture(scope="session")
def running(short_config: Path) -> Iterator[ServeProcess]:
    """A server for tests that leave it as it was."""
    with ServeProcess("--config", str(short_config), "--port", "0") as server:
        server.wait_until_ready()
        yield server
        assert server.terminate() == 0
