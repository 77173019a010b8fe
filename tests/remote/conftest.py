"""A real Periscope over the embedded demo pair, for tests that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import RunningServer, start_server


@pytest.fixture(scope="module")
def periscope(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The server; it must leave with status 0."""
    running = start_server(log=tmp_path_factory.mktemp("server") / "server.log")
    yield running
    assert running.stop() == 0
