"""Multimodal families through real MLX: in a batch, from a warm cache and after a preemption, tokens are the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from periscope.core import Image
from periscope.engine.config import EngineConfig
from periscope.engine.text.chat_template import ChatTokenizer
from periscope.engine.text_model import TextModel
from periscope.engine.worker.commands import Submit
from periscope.errors import ModelLoadError
from tests.engine.driving import Run, all_of, alone, load
from tests.engine.families.ocr_shapes import OCR_FAMILIES
from tests.engine.families.vision_checkpoints import write_vision_checkpoint
from tests.engine.families.vision_shapes import VISION_FAMILIES
from tests.engine.multimodal.chats import as_mlx_vlm_answers, asked, assistant, picture, tokenizer_of, user

#: Chunks end within pictures; there is room for all that these tests keep.
SETTINGS = EngineConfig(has_vision=True, prefill_chunk_size=24, prompt_cache_bytes=32 * 2**20)
ALL = {**VISION_FAMILIES, "glm_ocr": OCR_FAMILIES["glm_ocr"]}
#: mlx-vlm makes other numbers of embeddings than tokens; attention is not causal.
REFUSED = {"llava_next": "number of embeddings", "paligemma": "not causal"}
#: Deepstack, M-RoPE; tiles; sliding windows; states of fixed size: all ways in which families differ for the batch.
DIFFERENT = ("qwen3_vl", "smolvlm", "gemma3", "qwen3_5")


@dataclass(frozen=True)
class Loaded:
    """A family's checkpoint, its model and the tokenizer for its chats."""

    path: Path
    model: TextModel
    tokenizer: ChatTokenizer

    @classmethod
    def of(cls, name: str, folder: Path) -> Loaded:
        path = write_vision_checkpoint(folder / name, ALL[name])
        model = load(path, SETTINGS)
        return cls(path, model, tokenizer_of(model))

    def ask(self, *content: str | Image, num_tokens: int = 12) -> Submit:
        """Without repetitions, into which random weights fall whatever they are shown."""
        return asked(self.tokenizer.render([user(*content)]), num_tokens, repetition_penalty=1.5)

    def num_tokens(self, image: Image) -> int:
        assert self.model.facts.images is not None
        return self.model.facts.images.tokens_of(image).num_tokens


@pytest.fixture(scope="module", params=DIFFERENT)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return Loaded.of(request.param, tmp_path_factory.mktemp("vision"))


@pytest.mark.parametrize("name", [name for name in ALL if name not in REFUSED])
def test_every_family_answers_as_mlx_vlm_does_alone_and_together(name: str, tmp_path: Path) -> None:
    """Pictures and the text between them give mlx-vlm's prompt and its tokens, computed in chunks and in a batch."""
    family = Loaded.of(name, tmp_path)
    processor = family.model.facts.images
    assert processor is not None
    submits, expected = [], []
    for content in (("Look:", picture(1), "and\n", picture(2), "compare"), (picture(3, 100, 40), "what?")):
        prompt = family.tokenizer.render([user(*content)])
        images = [placed.image for placed in prompt.images]
        text = family.tokenizer.decode(prompt.token_ids)
        for image in images:
            text = text.replace(processor.tokens_of(image).text, processor.image_token, 1)
        ids, tokens = as_mlx_vlm_answers(family.path, text, images, 12)
        assert list(prompt.token_ids) == ids
        submits.append(asked(prompt))
        expected.append(tokens)
    assert alone(family.model, submits) == expected
    assert family.model.is_batched
    assert all_of(family.model.new_batch(), *submits) == expected


def test_a_limit_on_tiles_shortens_the_prompt(tmp_path: Path) -> None:
    """And what is answered is of the picture in fewer tiles."""
    path, wide = write_vision_checkpoint(tmp_path / "smolvlm", ALL["smolvlm"]), picture(1, 112, 56)
    lengths = []
    for config in (SETTINGS, replace(SETTINGS, max_image_tiles=1)):
        model = load(path, config)
        prompt = tokenizer_of(model).render([user(wide, "what?")])
        assert len(all_of(model.new_batch(), asked(prompt))[0]) == 12
        lengths.append(len(prompt.token_ids))
    assert lengths[1] < lengths[0]


@pytest.mark.parametrize(("name", "why"), REFUSED.items())
def test_a_family_that_the_batch_cannot_serve_says_so_at_its_load(name: str, why: str, tmp_path: Path) -> None:
    """With what to do instead."""
    with pytest.raises(ModelLoadError, match=rf"{why}.*vision_mode: proxy"):
        Loaded.of(name, tmp_path)


def test_alone_at_once_and_from_a_warm_cache_the_tokens_are_the_same(loaded: Loaded) -> None:
    """Rows with one picture, two and none share forward passes, though their positions count differently."""
    model = loaded.model
    submits = [
        loaded.ask(picture(1), "what?"),
        loaded.ask("a", picture(2), "b", picture(3, 40, 40), "c", num_tokens=20),
        loaded.ask("no picture at all", num_tokens=7),
        loaded.ask(picture(4, 200, 30), "what?"),
    ]
    expected = alone(model, submits)
    assert model.is_batched
    assert len({tuple(tokens) for tokens in expected}) == len(submits)
    batch = model.new_batch()
    assert all_of(batch, *submits) == expected
    warm = Run(batch)
    rows = warm.admit(*submits)
    warm.to_the_end()
    assert [warm.tokens[row] for row in rows] == expected
    if not model.wants_checkpoints:  # else a whole prompt's state cannot be cut back to its last token but one
        assert all(warm.last[row].num_cached_tokens > 20 for row in rows[:2])


def test_a_conversation_goes_on_without_encoding_its_pictures_again(loaded: Loaded) -> None:
    """The second turn computes only what is new, a picture among it, and answers as from the beginning."""
    batch = loaded.model.new_batch()
    batch.clear_prompt_cache()
    first = [user("Look:", picture(1), "what is it?")]
    run = Run(batch)
    (row,) = run.admit(asked(loaded.tokenizer.render(first)))
    run.to_the_end()
    said = loaded.tokenizer.decode(run.tokens[row])
    second = asked(loaded.tokenizer.render([*first, assistant(said), user("And this?", picture(2))]))
    (again,) = run.admit(second)
    encoded = []
    while run.live:
        encoded += [
            encode.at for encode in batch._scheduler.plan(batch._executor.view(()), batch._executor.timings).encodes
        ]
        run.step()
    assert run.last[again].num_cached_tokens > loaded.num_tokens(picture(1))
    assert [at >= run.last[again].num_cached_tokens for at in encoded] == [True]
    assert [run.tokens[again]] == alone(loaded.model, [second])


def test_another_picture_is_never_answered_from_the_first_one_s_state(loaded: Loaded) -> None:
    """Prompts that differ in their picture alone share only what stands before it."""
    batch = loaded.model.new_batch()
    batch.clear_prompt_cache()
    text = "A rather long beginning, which is worth keeping."
    one, other = (loaded.ask(text, *[picture(seed)] * 3) for seed in (1, 2))
    expected = alone(loaded.model, [one, other])
    assert expected[0] != expected[1]
    all_of(batch, one)
    run = Run(batch)
    (row,) = run.admit(other)
    run.to_the_end()
    assert run.tokens[row] == expected[1]
    assert run.last[row].num_cached_tokens <= other.prompt.images[0].start  # type: ignore[union-attr]


@pytest.mark.parametrize("loaded", ["qwen3_vl", "gemma3"], indirect=True)
def test_preempted_rows_go_on_as_if_nothing_had_happened(loaded: Loaded) -> None:
    """Two rows outgrow their memory: the newer waits, its picture is not encoded again, and no token changes."""
    length = len(loaded.tokenizer.render([user(picture(1))]).token_ids)
    submits = [loaded.ask(picture(seed), "x" * (200 - length), num_tokens=330) for seed in (1, 2)]
    expected = alone(loaded.model, submits)
    room = loaded.model._budget.footprint.nbytes(512)
    tight = load(loaded.path, EngineConfig(has_vision=True, kv_limit_bytes=2 * room, prompt_cache_bytes=0))
    batch, num_again = tight.new_batch(), 0
    run = Run(batch)
    rows = run.admit(*submits)
    while run.live:
        run.step()
        again = [prompt.row for prompt in batch._executor.prompts if prompt.row.num_read]
        num_again += len(again)
        assert all(row.images is not None and not row.images.unencoded for row in again)
    assert num_again
    assert [run.tokens[row] for row in rows] == expected


def test_running_rows_get_their_tokens_while_pictures_are_encoded(loaded: Loaded) -> None:
    """Between two pictures of a prompt every running row gets a token, and the tokens are the usual ones."""
    running, looking = loaded.ask("running", num_tokens=40), loaded.ask(picture(1), picture(2), picture(3))
    expected = alone(loaded.model, [running, looking])
    batch = loaded.model.new_batch()
    run = Run(batch)
    (first,) = run.admit(running)
    while not run.tokens[first]:
        run.step()
    (second,) = run.admit(looking)
    while not run.tokens[second]:
        before, unencoded = (
            len(run.tokens[first]),
            sum(len(p.row.images.unencoded) for p in batch._executor.prompts if p.row.images),
        )
        run.step()
        left = sum(len(prompt.row.images.unencoded) for prompt in batch._executor.prompts if prompt.row.images)
        assert unencoded - left <= 1
        assert len(run.tokens[first]) > before
    run.to_the_end()
    assert [run.tokens[first], run.tokens[second]] == expected


def test_a_picture_that_cannot_be_processed_fails_its_own_row(loaded: Loaded) -> None:
    """The others of the batch go on, and nothing stays behind."""
    good = loaded.ask(picture(1), "what?")
    (expected,) = alone(loaded.model, [good])
    broken = loaded.ask(picture(2), "what?")
    placed = broken.prompt.images[0]  # type: ignore[union-attr]
    object.__setattr__(placed.image, "rgb", b"")
    batch = loaded.model.new_batch()
    run = Run(batch)
    rows = run.admit(broken, good)
    run.to_the_end()
    assert run.last[rows[0]].error is not None
    assert run.tokens[rows[1]] == expected
    assert not batch._executor.prompts
