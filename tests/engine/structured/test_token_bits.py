"""Masks over a vocabulary: packing, unpacking and single tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.engine.structured.token_bits import WORD_BITS, has, num_words, packed, unpacked


@given(st.sets(st.integers(0, 95)))
def test_a_mask_holds_the_tokens_it_was_made_of(token_ids: set[int]) -> None:
    """Unpacking a packed mask gives the same tokens, and each token can be looked up."""
    is_allowed = np.zeros(96, dtype=bool)
    is_allowed[list(token_ids)] = True
    words = packed(is_allowed)
    assert words.dtype == np.uint32
    assert set(np.flatnonzero(unpacked(words))) == token_ids
    assert {token_id for token_id in range(96) if has(words, token_id)} == token_ids


@pytest.mark.parametrize(("vocab_size", "words"), [(0, 0), (1, 1), (32, 1), (33, 2), (64, 2)])
def test_a_vocabulary_takes_whole_words(vocab_size: int, words: int) -> None:
    """The last word may have bits that belong to no token."""
    assert num_words(vocab_size) == words
    assert words * WORD_BITS >= vocab_size
