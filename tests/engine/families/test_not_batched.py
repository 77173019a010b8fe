"""Architectures that cannot compute several requests in one pass: it is said at load, and all are answered."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from periscope.core import GenerationParams
from periscope.engine import InferenceEngine
from tests.engine.driving import all_of, load, submit
from tests.engine.families.checkpoints import write_checkpoint
from tests.engine.families.conftest import SETTINGS
from tests.engine.families.shapes import FAMILIES, ONE_POSITION

UNBATCHED = ONE_POSITION | {name: family for name, family in FAMILIES.items() if not family.is_batched}


async def lines_of_a_load(path: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    async with await InferenceEngine.load(str(path), SETTINGS):
        return [record.message for record in caplog.records if "not batched" in record.message]


@pytest.mark.parametrize("name", UNBATCHED)
def test_sixteen_at_once_are_answered_as_each_alone(name: str, tmp_path: Path) -> None:
    """Its tokens do not depend on who else is there, though no pass is shared."""
    model = load(write_checkpoint(tmp_path / name, UNBATCHED[name]), SETTINGS)
    assert not model.is_batched
    chosen = random.Random(5)
    prompts = [[chosen.randrange(250) for _ in range(length)] for length in range(1, 97, 6)]
    submits = [submit(tokens, GenerationParams(temperature=0.0, max_tokens=4)) for tokens in prompts]
    batch, expected = model.new_batch(), []
    for each in submits:
        batch.clear_prompt_cache()
        expected += all_of(batch, each)
    batch.clear_prompt_cache()
    assert all_of(batch, *submits) == expected


@pytest.mark.parametrize("name", UNBATCHED)
def test_it_is_said_at_load(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line in the log, which calls the model by its name."""
    path = write_checkpoint(tmp_path / name, UNBATCHED[name])
    (line,) = asyncio.run(lines_of_a_load(path, caplog))
    assert line.startswith(f"{path.name} is not batched")


def test_a_batched_model_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The line is for what is out of the ordinary."""
    assert not asyncio.run(lines_of_a_load(write_checkpoint(tmp_path / "plain", FAMILIES["qwen3"]), caplog))
