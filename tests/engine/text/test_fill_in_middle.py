"""Fill in the middle: each family's markers, in its own order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlx_lm.tokenizer_utils import load as load_tokenizer

from periscope.core import TextPrompt
from periscope.engine.text.chat_template import ChatTokenizer
from periscope.engine.text.fill_in_middle import fill_in_middle_of
from periscope.errors import ContextLengthExceeded, InvalidRequest
from tests.tiny_models import write_tokenizer

QWEN = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>")


def chat_tokenizer(folder: Path, *special: str, **settings: Any) -> ChatTokenizer:
    write_tokenizer(folder, special_tokens=special)
    return ChatTokenizer(load_tokenizer(folder), {}, **settings)


@pytest.mark.parametrize(
    ("special", "written"),
    [
        (QWEN, "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"),
        (("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), "<fim_prefix>a<fim_suffix>b<fim_middle>"),
        (
            ("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),
            "<\uff5cfim\u2581begin\uff5c>a<\uff5cfim\u2581hole\uff5c>b<\uff5cfim\u2581end\uff5c>",
        ),
        (("[PREFIX]", "[SUFFIX]"), "[SUFFIX]b[PREFIX]a"),
    ],
)
def test_a_prompt_is_written_in_the_models_markers(tmp_path: Path, special: tuple[str, ...], written: str) -> None:
    """As the family was trained; any of the markers ends the completion."""
    tokenizer = chat_tokenizer(tmp_path, *special)
    prompt = tokenizer.text_prompt(TextPrompt("a", "b"))
    assert tokenizer.decode(prompt.token_ids) == written
    assert {tokenizer.encode(marker) for marker in special} == {(each,) for each in prompt.end_token_ids}


def test_a_prefix_of_tokens_has_a_suffix_too(tmp_path: Path) -> None:
    """The ids are taken as they are."""
    tokenizer = chat_tokenizer(tmp_path, *QWEN)
    as_tokens = tokenizer.text_prompt(TextPrompt(tokenizer.encode("a"), "b"))
    assert as_tokens == tokenizer.text_prompt(TextPrompt("a", "b"))


def test_a_tokenizer_without_markers_is_told() -> None:
    """The error names the field and the way out; one marker of three is none."""
    with pytest.raises(InvalidRequest, match="cannot fill in the middle") as refusal:
        fill_in_middle_of({"a": 0, "<|fim_prefix|>": 1})
    assert refusal.value.param == "suffix"


def test_a_text_that_cannot_fit_is_refused(tmp_path: Path) -> None:
    """Whether it came as text or as tokens."""
    tokenizer = chat_tokenizer(tmp_path, context_length=16)
    for source in ("a" * 100, (65,) * 100):
        with pytest.raises(ContextLengthExceeded):
            tokenizer.text_prompt(TextPrompt(source))
    with pytest.raises(InvalidRequest, match="outside") as refusal:
        tokenizer.text_prompt(TextPrompt((10**6,), param="prompt[1]"))
    assert refusal.value.param == "prompt[1]"
