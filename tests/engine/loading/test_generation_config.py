"""What a model's author says of sampling and of ends, and what of that can be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from periscope.core import GenerationParams
from periscope.engine.loading.generation_config import authors_sampling, end_token_ids


def folder_with(folder: Path, generation: Any = None, config: Any = None) -> Path:
    for name, told in (("generation_config.json", generation), ("config.json", config)):
        if told is not None:
            (folder / name).write_text(told if isinstance(told, str) else json.dumps(told))
    return folder


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0}, None),
        ({"do_sample": True, "temperature": 0.6}, {"temperature": 0.6}),
        ({"do_sample": False, "temperature": 0.6, "top_k": 5}, {"temperature": 0.0}),
        ({"repetition_penalty": 1.05, "max_new_tokens": 9}, {"repetition_penalty": 1.05}),
        ({"temperature": None, "top_p": 0.9}, {"top_p": 0.9}),
        (
            {"temperature": "hot", "top_p": True, "top_k": 2.5, "min_p": [0.1], "repetition_penalty": 1.2},
            {"repetition_penalty": 1.2},
        ),
        ({"temperature": 9.0, "top_k": -1, "top_p": 0.5}, {"top_p": 0.5}),
        ("{", {}),
        ("[1]", {}),
        ('{"temperature": NaN}', {}),
    ],
)
def test_usable_values_are_defaults(tmp_path: Path, told: Any, expected: dict[str, Any] | None) -> None:
    """Others, and files that cannot be read, say nothing."""
    found = authors_sampling(folder_with(tmp_path, told))
    assert found == GenerationParams(**(told if expected is None else expected))


@pytest.mark.parametrize(
    ("generation", "config", "ids"),
    [
        (None, None, set()),
        ({"eos_token_id": 5}, {"eos_token_id": 7}, {5, 7}),
        ({"eos_token_id": [5, 6]}, {"eos_token_id": [6, 8]}, {5, 6, 8}),
        ({"eos_token_id": None}, {"text_config": {"eos_token_id": 3}}, {3}),
        ({"eos_token_id": [5, -1, "a", True, 100]}, "{", {5}),
    ],
)
def test_every_end_token_of_both_files_counts(tmp_path: Path, generation: Any, config: Any, ids: set[int]) -> None:
    """As far as the vocabulary has it."""
    assert end_token_ids(folder_with(tmp_path, generation, config), below=50) == ids
