"""A hub with one small model, and an empty cache to pull it into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import close_session

from periscope.hub import Hub
from tests.hub.fake_hub import FILES, MODEL, UNWANTED, FakeHub, fake_hub


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The library's one HTTP client must neither use a proxy nor outlive the hub."""
    monkeypatch.setenv("NO_PROXY", "*")
    close_session()
    with fake_hub() as hub:
        hub.repos[MODEL] = {**FILES, **UNWANTED}
        yield hub
        close_session()


@pytest.fixture
def hub(fake: FakeHub, tmp_path: Path) -> Hub:
    """The hub, and a cache that does not exist yet."""
    return Hub(endpoint=fake.url, cache_dir=tmp_path / "cache")
