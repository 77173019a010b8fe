"""A whole `bench neighbours` on a tiny model: what it reports, never how fast it was."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from periscope.bench.neighbours import NeighbourSettings, bench_neighbours
from periscope.errors import InvalidRequest, ModelLoadError


def test_every_figure_of_a_long_prompt_beside_a_stream(tiny_random_model: Path) -> None:
    """There is one sample per round after the warm-up, with a long prompt of the requested length and every figure."""
    told: list[str] = []
    settings = NeighbourSettings(model=str(tiny_random_model), rounds=1, prompt_tokens=400, short_after_s=0.0)
    report = asyncio.run(bench_neighbours(settings, told.append))
    (sample,) = report.samples
    assert told == ["warming up", "round 1 of 1"]
    assert 400 < sample.num_prompt_tokens < 420
    assert sample.longest_gap_steps >= sample.p99_gap_steps > 0
    assert sample.joined_longest_gap_steps is not None
    assert sample.joined_step_steps is not None
    assert sample.joined_longest_gap_steps >= sample.joined_step_steps > 0
    assert all(figure.value is not None for figure in report.figures)
    assert report.model.shape["num_hidden_layers"] == 2


@pytest.mark.parametrize(("prompt_tokens", "model"), [(2000, None), (6000, "nowhere")])
def test_what_cannot_be_measured_is_told_first(tiny_random_model: Path, prompt_tokens: int, model: str | None) -> None:
    """A prompt beyond the model's context is an error that names the limit; so is a model that is not on this disk."""
    asked = str(tiny_random_model.parent / model if model else tiny_random_model)
    settings = NeighbourSettings(model=asked, prompt_tokens=prompt_tokens)
    expected = ModelLoadError if model else InvalidRequest
    with pytest.raises(expected, match=r"no folder|--prompt-tokens 2000 .*2048 tokens.*1968"):
        asyncio.run(bench_neighbours(settings, lambda _: pytest.fail("nothing is to be measured")))
