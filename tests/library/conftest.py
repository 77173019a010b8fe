"""The demo pair as a library, started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from periscope import sync
from periscope.config import Config
from tests.config.files import load_text

#: The demo pair, with captions in memory alone.
DEMO = """\
caption_cache: {persist: false}
prompt_cache: {persist: false}
models:
  - name: demo
    local_path: embedded:text
    preload: true
    params: {temperature: 0}
    capabilities: {vision_mode: proxy, vision_proxy: {model: eyes}}
  - {name: eyes, local_path: "embedded:captioner"}
"""


@pytest.fixture(scope="session")
def demo_config() -> Config:
    return load_text(DEMO)


@pytest.fixture(scope="module")
def demo(demo_config: Config) -> Iterator[sync.Periscope]:
    with sync.Periscope(demo_config) as periscope:
        yield periscope
