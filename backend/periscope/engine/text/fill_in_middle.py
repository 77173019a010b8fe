"""Fill in the middle: prompts with a prefix and a suffix, in the markers that the tokenizer has for them. Pure.

Source: the model cards of the families below; llama.cpp's `llama-vocab.cpp` finds the same tokens by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from periscope.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class _Family:
    """The markers of one family of models, as tokens of its vocabulary.

    Attributes:
        middle: after which the model writes; "" if it does so right behind the prefix.
        is_suffix_first: the prompt is suffix, then prefix.
        ends: further tokens with which the model says that the middle is complete, if the vocabulary has them.
    """

    prefix: str
    suffix: str
    middle: str
    is_suffix_first: bool = False
    ends: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[str, ...]:
        return tuple(marker for marker in (self.prefix, self.suffix, self.middle) if marker)


_FAMILIES = (
    _Family(
        "<|fim_prefix|>",  # Qwen Coder, CodeGemma
        "<|fim_suffix|>",
        "<|fim_middle|>",
        ends=("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|file_separator|>", "<|endoftext|>"),
    ),
    _Family(
        "<fim_prefix>",  # StarCoder, Granite
        "<fim_suffix>",
        "<fim_middle>",
        ends=("<fim_pad>", "<reponame>", "<repo_name>", "<file_sep>", "<filename>", "<|endoftext|>"),
    ),
    _Family("<fim-prefix>", "<fim-suffix>", "<fim-middle>", ends=("<fim-pad>", "<|endoftext|>")),  # SantaCoder
    _Family(
        "<\uff5cfim\u2581begin\uff5c>",  # DeepSeek Coder
        "<\uff5cfim\u2581hole\uff5c>",
        "<\uff5cfim\u2581end\uff5c>",
        ends=("<|EOT|>", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
    ),
    _Family("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>", ends=("\u2581<EOT>",)),  # Code Llama
    _Family("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>", ends=("<|endoftext|>",)),  # GLM
    _Family("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>", is_suffix_first=True),  # Seed Coder
    _Family("[PREFIX]", "[SUFFIX]", "", is_suffix_first=True),  # Codestral
)


@dataclass(frozen=True, slots=True)
class FillInMiddle:
    """The ids of one tokenizer's markers.

    Attributes:
        middle: None if there is none.
        end_token_ids: they end a completion, and are no part of its text.
    """

    prefix: int
    suffix: int
    middle: int | None
    is_suffix_first: bool
    end_token_ids: tuple[int, ...]

    def prompt(self, prefix: Sequence[int], suffix: Sequence[int]) -> tuple[int, ...]:
        """The tokens of a prompt, without those with which the tokenizer opens a text."""
        before, after = (self.prefix, *prefix), (self.suffix, *suffix)
        parts = (*after, *before) if self.is_suffix_first else (*before, *after)
        return parts if self.middle is None else (*parts, self.middle)


def fill_in_middle_of(vocabulary: Mapping[str, int]) -> FillInMiddle:
    """The markers of the first family whose tokens are all in the vocabulary.

    Raises:
        InvalidRequest: there is none.
    """
    for family in _FAMILIES:
        if all(marker in vocabulary for marker in family.markers):
            ends = (*family.markers, *family.ends)
            return FillInMiddle(
                vocabulary[family.prefix],
                vocabulary[family.suffix],
                vocabulary[family.middle] if family.middle else None,
                family.is_suffix_first,
                tuple(vocabulary[token] for token in ends if token in vocabulary),
            )
    raise InvalidRequest(
        "This model cannot fill in the middle: its tokenizer has no tokens for a prefix and a suffix. Leave `suffix` "
        "out, or use a model that was trained for it (Qwen Coder, StarCoder, Codestral, DeepSeek Coder and others).",
        param="suffix",
    )
