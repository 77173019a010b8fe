"""The families' checkpoints, written once a session, and each one's model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from periscope.engine.config import EngineConfig
from periscope.engine.text_model import TextModel
from tests.engine.driving import load
from tests.engine.families.checkpoints import write_checkpoint, write_quantised
from tests.engine.families.shapes import FAMILIES, Family

#: Prompts are read in several chunks; there is room for all that these tests keep.
SETTINGS = EngineConfig(prompt_cache_bytes=32 * 2**20, prefill_chunk_size=48)
PRECISIONS = {"float32": write_checkpoint, "4bit": write_quantised}


@dataclass(frozen=True)
class Checkpoint:
    """A folder with a model of a family. `precision`: as in PRECISIONS."""

    family: Family
    precision: str
    path: Path


@pytest.fixture(scope="session", params=[f"{name}-{precision}" for name in FAMILIES for precision in PRECISIONS])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    name, precision = str(request.param).rsplit("-", 1)
    folder = tmp_path_factory.mktemp(name) / precision
    return Checkpoint(FAMILIES[name], precision, PRECISIONS[precision](folder, FAMILIES[name]))


@pytest.fixture(scope="session")
def model(checkpoint: Checkpoint) -> TextModel:
    return load(checkpoint.path, SETTINGS)
