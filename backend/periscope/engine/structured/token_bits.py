"""Bit masks over a vocabulary: bit `t % 32` of word `t // 32` is set when token `t` is allowed. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from numpy.typing import NDArray

#: Tokens in one word of a mask.
WORD_BITS = 32
_BITS = np.left_shift(np.uint32(1), np.arange(WORD_BITS, dtype=np.uint32))


def num_words(vocab_size: int) -> int:
    """How many words a mask over this vocabulary has."""
    return -(-vocab_size // WORD_BITS)


def allowed_words(matcher: LLMatcher) -> NDArray[np.uint32]:
    """The mask of the tokens that the matcher's grammar allows next."""
    return np.frombuffer(matcher.compute_bitmask(), dtype=np.uint32)


def unpacked(words: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Whether the bit of each token is set: as many as the words have bits."""
    return np.unpackbits(words.view(np.uint8), bitorder="little").view(np.bool_)


def packed(is_allowed: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """The opposite of `unpacked`; takes a multiple of 32 tokens."""
    return np.packbits(is_allowed, bitorder="little").view(np.uint32)


def has(words: NDArray[np.uint32], token_id: int) -> bool:
    """Whether the token's bit is set."""
    return bool(words[token_id // WORD_BITS] >> np.uint32(token_id % WORD_BITS) & np.uint32(1))


def apply_bits(logits: mx.array, bits: NDArray[np.uint32]) -> mx.array:
    """Set the logits of tokens that are not allowed to minus infinity, on any device.

    The mask is transferred as packed words, one per 32 tokens, and unpacked on the device.

    Args:
        logits: (rows, vocabulary).
        bits: (rows, words) of `Matcher.allowed_bits`.
    """
    is_allowed = (mx.array(bits)[..., None] & mx.array(_BITS)) != 0
    is_allowed = is_allowed.reshape(logits.shape[0], -1)[:, : logits.shape[-1]]
    return mx.where(is_allowed, logits, mx.array(-mx.inf, dtype=logits.dtype))
