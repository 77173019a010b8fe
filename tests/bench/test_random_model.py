"""The model with random weights."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from periscope.bench.random_model import write_random_model
from periscope.bench.words import WORDS, words
from periscope.core import FinishReason, GenerationParams
from periscope.engine import GenerationOutput, InferenceEngine
from tests.bench.conftest import TINY


def test_the_same_seed_gives_the_same_model(tiny_random_model: Path, tmp_path: Path) -> None:
    """A seed determines the weights, so that runs can be repeated; another seed gives another model."""
    again = write_random_model(tmp_path / "again", TINY)
    other = write_random_model(tmp_path / "other", TINY, seed=1)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (again / name).read_bytes() == (tiny_random_model / name).read_bytes()
    assert (other / "model.safetensors").read_bytes() != (again / "model.safetensors").read_bytes()


def test_its_greedy_answers_run_on_and_wander(tiny_random_model: Path) -> None:
    """No answer ends early or repeats one token, and its text is tokenised into the generated tokens again."""

    async def answers() -> tuple[list[GenerationOutput], list[tuple[int, ...]]]:
        async with await InferenceEngine.load(str(tiny_random_model)) as engine:
            params = GenerationParams(temperature=0.0, max_tokens=48)
            made = [await engine.generate(words(12, number), params) for number in range(6)]
            return made, [engine.tokenize(output.text) for output in made]

    made, read_again = asyncio.run(answers())
    assert [output.tokens for output in made] == read_again
    for output in made:
        assert output.finish_reason is FinishReason.LENGTH
        assert len(set(output.tokens)) > 12


def test_a_word_of_a_prompt_is_one_token(tiny_random_model: Path) -> None:
    """Every word is one token, so prompts have the requested length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tiny_random_model / "tokenizer.json"))
    assert all(len(tokenizer.encode(f" {word}").ids) == 1 for word in WORDS)
    config = json.loads((tiny_random_model / "config.json").read_text())
    assert tokenizer.get_vocab_size() == config["vocab_size"] == TINY.vocab_size
