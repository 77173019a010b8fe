"""Fixtures: a model small enough to be measured in milliseconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from periscope.bench.random_model import Shape, write_random_model

TINY = Shape(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp=128, vocab_size=2048, context_length=2048)


@pytest.fixture(scope="session")
def tiny_random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random model, as the benchmarks write it."""
    return write_random_model(tmp_path_factory.mktemp("models") / "tiny-random", TINY)
