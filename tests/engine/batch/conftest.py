"""A tiny model for all tests of a file, and a fresh batch of it for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from periscope.engine.batch.text_batch import TextBatch
from periscope.engine.config import EngineConfig
from periscope.engine.text_model import TextModel
from tests.engine.driving import load


@pytest.fixture(scope="module")
def model(tiny_text_model: Path) -> TextModel:
    return load(tiny_text_model, EngineConfig(prompt_cache_bytes=8 * 2**20, prefill_chunk_size=64))


@pytest.fixture
def batch(model: TextModel) -> Iterator[TextBatch]:
    fresh = model.new_batch()
    fresh.clear_prompt_cache()
    yield fresh
    fresh.close()
