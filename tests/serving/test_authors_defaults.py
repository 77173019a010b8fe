"""A model works as its author meant: its sampling is the lowest layer, and all its end tokens end text and grammars."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from periscope.core import FinishReason, GenerationParams, OutputSpec, ResponseFormat
from periscope.serving.cards import default_sampling
from periscope.serving.generation import LocalGenerator
from tests.serving.test_generation import Told, asking, told
from tests.serving.test_thinking import with_model
from tests.tiny_models import write_text_model

OPEN = GenerationParams(max_tokens=24)


def answers_of(folder: Path, *params: GenerationParams, **fields: Any) -> list[Told]:
    async def use(generator: LocalGenerator) -> list[Told]:
        found = []
        for each in params:
            async with aclosing(generator.stream(asking("Hello", each, **fields))) as events:
                found.append(told([event async for event in events]))
        return found

    wanted: Callable[[LocalGenerator], Awaitable[list[Told]]] = use
    return with_model(folder, wanted)


@pytest.mark.parametrize(
    ("authors", "same"),
    [
        ({"do_sample": False, "temperature": 0.9}, GenerationParams(temperature=0.0)),
        ({"top_k": 1, "temperature": 1.3}, GenerationParams(temperature=0.0)),
        ({"temperature": 0.4, "repetition_penalty": 1.3}, GenerationParams(temperature=0.4, repetition_penalty=1.3)),
    ],
)
def test_what_a_request_leaves_open_is_sampled_as_the_author_says(
    tmp_path: Path, authors: dict[str, Any], same: GenerationParams
) -> None:
    """And what it sets wins."""
    seeded = replace(OPEN, seed=4)
    plain = write_text_model(tmp_path / "plain")
    tuned = write_text_model(tmp_path / "tuned")
    (tuned / "generation_config.json").write_text(json.dumps(authors))
    own = replace(seeded, temperature=1.0, top_k=0, repetition_penalty=1.0)
    as_author, as_asked = answers_of(tuned, seeded, own)
    expected, plainly = answers_of(plain, replace(same, seed=4, max_tokens=24), own)
    assert as_author.text == expected.text
    assert as_asked.text == plainly.text != as_author.text


@pytest.mark.parametrize("end", [256, 257, 65], ids=["config.json", "tokenizer", "generation_config.json"])
def test_each_end_token_ends_a_text_and_json(tmp_path: Path, end: int) -> None:
    """None of them is part of the text, and a grammar that is complete can end with any."""
    folder = write_text_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 256}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [65]}))
    wants_it = replace(OPEN, temperature=0.0, logit_bias=((end, 100.0),))
    (text,) = answers_of(folder, wants_it)
    assert (text.text, text.end.finish_reason) == ("", FinishReason.STOP)
    whole = ResponseFormat({"type": "object", "additionalProperties": False})
    (answer,) = answers_of(folder, wants_it, output=OutputSpec(response_format=whole))
    assert (answer.text, answer.end.finish_reason) == ("{}", FinishReason.STOP)
    assert answer.end.usage.num_completion_tokens <= 3


def test_a_default_tells_where_it_comes_from() -> None:
    """models.yaml stands above the author; what nobody says is not listed."""
    found = default_sampling(
        GenerationParams(temperature=0.0, thinking_budget=5), GenerationParams(temperature=0.6, top_k=20)
    )
    assert {name: (default.value, default.source) for name, default in found.items()} == {
        "temperature": (0.0, "models.yaml"),
        "top_k": (20, "generation_config.json"),
        "thinking_budget": (5, "models.yaml"),
    }
