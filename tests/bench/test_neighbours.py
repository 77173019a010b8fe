"""What `bench neighbours` cannot measure. A whole run is in tests/cli/test_cli_bench.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from periscope.bench.neighbours import NeighbourSettings, bench_neighbours
from periscope.errors import InvalidRequest, ModelLoadError


@pytest.mark.parametrize(("prompt_tokens", "model"), [(2000, None), (6000, "nowhere")])
def test_what_cannot_be_measured_is_told_first(tiny_random_model: Path, prompt_tokens: int, model: str | None) -> None:
    """A prompt beyond the model's context is an error that names the limit; so is a model that is not on this disk."""
    asked = str(tiny_random_model.parent / model if model else tiny_random_model)
    settings = NeighbourSettings(model=asked, prompt_tokens=prompt_tokens)
    expected = ModelLoadError if model else InvalidRequest
    with pytest.raises(expected, match=r"no folder|--prompt-tokens 2000 .*2048 tokens.*1968"):
        asyncio.run(bench_neighbours(settings, lambda _: pytest.fail("nothing is to be measured")))
