"""Prompts that begin with a state of the disk, through real MLX: the tokens are those of a computed prompt."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from periscope.core import GenerationParams, Image, Message
from periscope.engine.batch.disk.files import SET_ASIDE
from periscope.engine.batch.text_batch import TextBatch
from periscope.engine.config import EngineConfig, StatesOnDisk
from periscope.engine.text_model import TextModel
from tests.engine.driving import Run, all_of, load, submit
from tests.engine.families.vision_checkpoints import write_vision_checkpoint
from tests.engine.families.vision_shapes import VISION_FAMILIES
from tests.engine.multimodal.chats import asked, assistant, picture, tokenizer_of, user
from tests.tiny_models import SHAPES, write_text_model

COLD = EngineConfig(prompt_cache_bytes=0, prefill_chunk_size=64)


def kept_in(folder: Path, max_bytes: int = 2**26) -> EngineConfig:
    states = StatesOnDisk(folder / "states", max_bytes)
    return EngineConfig(prompt_cache_bytes=2**25, prefill_chunk_size=64, states_on_disk=states)


def prompt(seed: int, length: int = 300) -> list[int]:
    return [random.Random(f"{seed} {at}").randrange(250) for at in range(length)]


def after_a_restart(path: Path, config: EngineConfig, *said: list[int]) -> TextModel:
    """The model, loaded again after a life in which it answered these prompts and was unloaded."""
    batch = load(path, config).new_batch()
    all_of(batch, *(submit(tokens, checkpoints=(100, 200)) for tokens in said))
    batch.save(60)
    batch.close()
    return load(path, config)


def answered(batch: TextBatch, *prompts: list[int]) -> tuple[list[list[int]], list[int]]:
    """The tokens of requests that run together, and how many tokens of each prompt were not computed."""
    run = Run(batch)
    rows = run.admit(*map(submit, prompts))
    run.to_the_end()
    return [run.tokens[row] for row in rows], [run.last[row].num_cached_tokens for row in rows]


@pytest.mark.parametrize("model_type", SHAPES)
def test_from_disk_as_from_memory_as_computed(model_type: str, tmp_path: Path) -> None:
    """The next turn after a restart is answered to the token, for plain, sliding, chunked and state-space caches."""
    path = write_text_model(tmp_path / model_type, model_type=model_type)
    config, first = kept_in(tmp_path), prompt(1)
    model = after_a_restart(path, config, first)
    (said,) = all_of(load(path, COLD).new_batch(), submit(first))
    turn = [*first, *said, *prompt(2, 40)]
    expected, _ = answered(load(path, COLD).new_batch(), turn)
    assert answered(model.new_batch(), turn) == (expected, [len(first) + len(said) - 1])
    assert answered(model.new_batch(), turn)[0] == expected  # from memory, to which it was read


def test_another_conversation_with_the_same_beginning_starts_from_it(tmp_path: Path) -> None:
    """An agent's preamble is found, though the file is of a longer conversation; all rows wait for one read."""
    path = write_text_model(tmp_path / "tiny")
    preamble = prompt(1)
    model = after_a_restart(path, kept_in(tmp_path), [*preamble, *prompt(2, 200)])
    others = [[*preamble, *prompt(seed, 50)] for seed in range(3, 7)]
    expected, _ = answered(load(path, COLD).new_batch(), *others)
    tokens, cached = answered(model.new_batch(), *others)
    assert tokens == expected
    assert min(cached) >= len(preamble)


def slow_clock() -> Iterator[float]:
    """At each look a second has passed, so that a step has time for one piece."""
    return (float(second) for second in itertools.count())


def test_rows_decode_on_while_a_state_is_read(tmp_path: Path) -> None:
    """Piece by piece between their steps; none of them waits for the whole of it."""
    path = write_text_model(tmp_path / "tiny")
    first = prompt(1)
    model = after_a_restart(path, kept_in(tmp_path), first)
    clock = slow_clock()
    batch = model.new_batch(clock=lambda: next(clock))
    run = Run(batch)
    endless = GenerationParams(temperature=0.0, max_tokens=200, logit_bias=((257, -100.0),))
    (decoding,) = run.admit(submit([1, 2, 3], endless))
    while len(run.tokens[decoding]) < 2:  # from then on each step reads the token of the step before
        run.step()
    (arrived,) = run.admit(submit([*first, 1, 2]))
    assert batch._arrivals is not None
    num_steps = 0
    while batch._arrivals:
        before = len(run.tokens[decoding])
        run.step()
        num_steps += 1
        assert len(run.tokens[decoding]) > before
    assert num_steps >= 4  # keys and values of two layers
    while arrived in run.live:
        run.step()
    assert run.last[arrived].num_cached_tokens == len(first)


def test_a_client_that_leaves_while_its_state_is_read_leaves_the_others_theirs(tmp_path: Path) -> None:
    """Whether it was the one for which the file is open, or waits behind it."""
    path = write_text_model(tmp_path / "tiny")
    first = prompt(1)
    expected, _ = answered(load(path, COLD).new_batch(), [*first, 3])
    for leaves in (0, 1):
        model = after_a_restart(path, kept_in(tmp_path), first)
        clock = slow_clock()
        batch = model.new_batch(clock=lambda clock=clock: next(clock))  # type: ignore[misc]
        run = Run(batch)
        rows = run.admit(submit([*first, 3]), submit([*first, 3]))
        run.step()
        run.remove(rows[leaves])
        run.to_the_end()
        assert run.tokens[rows[1 - leaves]] == expected[0]
        assert run.tokens[rows[leaves]] == []
        assert run.last[rows[1 - leaves]].num_cached_tokens == len(first)
        assert not batch.has_work


def test_a_damaged_file_costs_a_prompt_nothing_but_its_computation(tmp_path: Path) -> None:
    """The answer is the same, and the file is out of the way."""
    path = write_text_model(tmp_path / "tiny")
    first = prompt(1)
    model = after_a_restart(path, kept_in(tmp_path), first)
    (file,) = (tmp_path / "states").rglob("*.safetensors")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    expected, _ = answered(load(path, COLD).new_batch(), [*first, 3])
    assert answered(model.new_batch(), [*first, 3]) == (expected, [0])
    assert [each.suffix for each in (tmp_path / "states").rglob("*") if each.is_file()] == [SET_ASIDE]


def test_other_weights_under_the_same_name_find_nothing(tmp_path: Path) -> None:
    """Not those of a model that was trained on, nor those that are run in another precision."""
    path = write_text_model(tmp_path / "tiny")
    first, config = prompt(1), kept_in(tmp_path)
    after_a_restart(path, config, first)
    halved = load(path, replace(config, dtype="float16"))
    assert answered(halved.new_batch(), [*first, 3])[1] == [0]
    write_text_model(path, seed=9)
    os.utime(path / "model.safetensors")
    assert answered(load(path, config).new_batch(), [*first, 3])[1] == [0]


def test_a_request_for_the_log_probabilities_of_its_prompt_is_computed(tmp_path: Path) -> None:
    """All of them are wanted, so no part of it may be left out."""
    path = write_text_model(tmp_path / "tiny")
    first = prompt(1)
    model = after_a_restart(path, kept_in(tmp_path), first)
    run = Run(model.new_batch())
    (row,) = run.admit(
        submit([*first, 3], GenerationParams(temperature=0.0, max_tokens=1, logprobs=True, prompt_logprobs=True))
    )
    run.to_the_end()
    assert run.last[row].num_cached_tokens == 0
    assert len(run.last[row].prompt_logprobs) == len(first) + 1


def test_without_a_prompt_cache_there_is_none_on_disk(tmp_path: Path) -> None:
    """`prompt_cache: 0` of a model keeps its prompts out of files, too."""
    path = write_text_model(tmp_path / "tiny")
    model = after_a_restart(path, replace(kept_in(tmp_path), prompt_cache_bytes=0), prompt(1))
    assert answered(model.new_batch(), [*prompt(1), 3])[1] == [0]
    assert not (tmp_path / "states").exists()


@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3", "qwen3_5"])
def test_pictures_of_an_earlier_life_are_not_encoded_again(family: str, tmp_path: Path) -> None:
    """A native model goes on from a state with pictures, and never takes one picture's for another's."""
    path = write_vision_checkpoint(tmp_path / family, VISION_FAMILIES[family])
    config = replace(kept_in(tmp_path), has_vision=True, prefill_chunk_size=24)
    model = load(path, config)
    tokenizer, batch = tokenizer_of(model), model.new_batch()
    text = "A rather long beginning, which is worth keeping, whatever a tokenizer makes of its letters."

    def chat(shown: Image) -> list[Message]:
        return [user(text, shown, "what is it?")]

    (tokens,) = all_of(batch, asked(tokenizer.render(chat(picture(1)))))
    batch.save(60)
    said = assistant(tokenizer.decode(tokens))
    cold = load(path, replace(config, states_on_disk=None, prompt_cache_bytes=0)).new_batch()
    again = load(path, config).new_batch()
    for shown in (picture(1), picture(2)):
        turn = asked(tokenizer.render([*chat(shown), said, user("And now?")]))
        run = Run(again)
        (row,) = run.admit(turn)
        run.to_the_end()
        assert [run.tokens[row]] == all_of(cold, turn)
        (placed,) = turn.prompt.images  # type: ignore[union-attr]
        assert (run.last[row].num_cached_tokens >= placed.stop) == (shown == picture(1))
