"""A real, trained text model beside the demo captioner. `make real` runs these tests, `make test` skips them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import RunningServer, start_server

_HERE = Path(__file__).parent
YAML = """
models:
- name: real
  local_path: {folder}
  preload: true
  capabilities: {{vision_mode: proxy, vision_proxy: {{model: captioner, reader_timeout_s: 300}}}}
- {{name: captioner, local_path: "embedded:captioner", preload: true}}
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skipped unless asked for: they fetch a package of 150 MB once, and take minutes on a CPU."""
    if os.environ.get("REAL_MODEL_TESTS") != "1":
        for item in items:
            if _HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs a real model: run `make real`"))


@pytest.fixture(scope="session")
def real_model() -> Path:
    """The folder of the model, built when it is not there."""
    from tests.real.build_model import build, model_folder

    return build(model_folder())


@pytest.fixture(scope="session")
def real_server(real_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The real model with the demo captioner, served as users serve it."""
    folder = tmp_path_factory.mktemp("real")
    config = folder / "models.yaml"
    config.write_text(YAML.format(folder=real_model))
    running = start_server(config, log=folder / "server.log")
    yield running
    assert running.stop() == 0
