"""A real Periscope over the embedded demo pair, for tests that leave it as it was."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import RunningServer


@pytest.fixture(scope="session")
def periscope(server: RunningServer) -> RunningServer:
    """The one that the end-to-end tests use."""
    return server
