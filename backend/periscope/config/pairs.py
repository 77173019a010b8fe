"""Text models and captioners that suit each other, with what they take: the choices of `periscope config init`.

The bytes are what `engine.loading.footprint.measure` says of checkpoints of these shapes, so that the server accepts
what is chosen here; a test makes such checkpoints, without numbers in them, and compares. Sampling settings are those
of the models' cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on the hub.

    Attributes:
        weights_bytes: of the loaded weights.
        reserve_bytes: what is kept free for its work: a conversation of 8,192 tokens, or one picture.
        token_bytes: of one token in its KV cache.
        max_context: tokens that it was made for, as far as they are of use here.
    """

    hf_id: str
    weights_bytes: int
    reserve_bytes: int
    token_bytes: int = 0
    max_context: int = 0

    @property
    def total_bytes(self) -> int:
        """What must be free for it."""
        return self.weights_bytes + self.reserve_bytes


@dataclass(frozen=True, slots=True)
class Pair:
    """A text model and its captioner, both of them in memory at once."""

    name: str
    text: Checkpoint
    captioner: Checkpoint
    why: str
    sampling: Mapping[str, float]

    @property
    def total_bytes(self) -> int:
        """What the budget must have for both."""
        return self.text.total_bytes + self.captioner.total_bytes

    def context_length(self, budget_bytes: int) -> int:
        """Pure: the longest context, a power of two, for which the budget has room beside the pair; at least 8,192."""
        room = budget_bytes - self.total_bytes + self.text.reserve_bytes
        length = 8192
        while length * 2 <= self.text.max_context and length * 2 * self.text.token_bytes <= room:
            length *= 2
        return length


_QWEN: Final = {"temperature": 0.7, "top_p": 0.8, "top_k": 20}
_SMOLVLM_500M = Checkpoint("mlx-community/SmolVLM2-500M-Video-Instruct-mlx", 1_014_964_608, 436_207_616)
_QWEN_VL_2B = Checkpoint("mlx-community/Qwen3-VL-2B-Instruct-4bit", 1_781_915_648, 738_197_504)
_QWEN_VL_4B = Checkpoint("mlx-community/Qwen3-VL-4B-Instruct-4bit", 3_093_615_616, 872_415_232)
_QWEN_VL_8B = Checkpoint("mlx-community/Qwen3-VL-8B-Instruct-4bit", 5_760_508_384, 872_415_232)
#: Smallest first. Each is worth the memory that it takes beyond the one before.
PAIRS: Final = (
    Pair(
        "llama-3b",
        Checkpoint("mlx-community/Llama-3.2-3B-Instruct-4bit", 1_807_423_488, 939_524_096, 114_688, 131_072),
        _SMOLVLM_500M,
        "The smallest pair of use: plain questions, short descriptions of pictures.",
        {},
    ),
    Pair(
        "qwen3-4b",
        Checkpoint("mlx-community/Qwen3-4B-Instruct-2507-4bit", 2_262_920_192, 1_207_959_552, 147_456, 131_072),
        _QWEN_VL_2B,
        "Follows instructions and calls tools well for its size; the captioner reads signs and screenshots.",
        _QWEN,
    ),
    Pair(
        "qwen3-14b",
        Checkpoint("mlx-community/Qwen3-14B-4bit", 8_307_783_680, 1_342_177_280, 163_840, 32_768),
        _QWEN_VL_4B,
        "Thinks before it answers, unless a request turns that off; for harder questions than the 4 B model's.",
        {"temperature": 0.6, "top_p": 0.95, "top_k": 20},
    ),
    Pair(
        "qwen3-30b",
        Checkpoint("mlx-community/Qwen3-30B-A3B-Instruct-2507-4bit", 17_180_913_664, 805_306_368, 98_304, 131_072),
        _QWEN_VL_4B,
        "A mixture of experts: the knowledge of 30 B parameters at the speed of 3 B.",
        _QWEN,
    ),
    Pair(
        "qwen3-next-80b",
        Checkpoint("mlx-community/Qwen3-Next-80B-A3B-Instruct-4bit", 44_844_060_160, 240_844_800, 24_576, 131_072),
        _QWEN_VL_8B,
        "A larger mixture of experts with little memory per token of context; the captioner sees small details.",
        _QWEN,
    ),
)
