"""Fixtures shared by all rooms."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.e2e.conftest import RunningServer

# No test leaves captions or prompts on this machine, or finds those of another test: one that wants the file names it.
os.environ["PERISCOPE_CAPTION_CACHE__PERSIST"] = os.environ["PERISCOPE_PROMPT_CACHE__PERSIST"] = "false"
# Nor does one find the server of whoever runs the tests: each that a test starts has a home of its own in this one.
os.environ["PERISCOPE_HOME"] = tempfile.mkdtemp(prefix="periscope-tests-")
atexit.register(shutil.rmtree, os.environ["PERISCOPE_HOME"], ignore_errors=True)
# Hubs of tests are on this machine, and whoever runs the tests may have the real one switched off.
os.environ.pop("HF_HUB_OFFLINE", None)

# A busy machine is no failure: an example may take as long as it likes.
settings.register_profile("without deadlines", deadline=None)
settings.load_profile("without deadlines")


@pytest.fixture(scope="module", autouse=True)
def long_lived_left_alone() -> None:
    """Thousands of tests and the libraries they import are here to stay: no collection need look through them again.

    For each module anew, because an engine that is unloaded has everything looked through if its model is still held.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_text_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random-weight text model."""
    from tests.tiny_models import write_text_model

    return write_text_model(tmp_path_factory.mktemp("models") / "tiny-text")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server over the embedded demo pair, for all tests that leave it as it was; it must leave with status 0."""
    from tests.e2e.conftest import start_server

    running = start_server(log=tmp_path_factory.mktemp("server") / "server.log")
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session", autouse=True)
def mlx_of_this_thread() -> Iterator[None]:
    """The test thread may have used MLX: give its streams back, or the interpreter aborts at exit."""
    yield
    import mlx.core as mx

    mx.clear_streams()
