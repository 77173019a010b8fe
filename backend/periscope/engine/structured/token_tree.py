"""Makes llguidance's tokenizer from a model's tokenizer."""

from __future__ import annotations

from typing import Any

from llguidance import LLTokenizer, TokenizerWrapper
from llguidance.hf import from_tokenizer
from transformers import PreTrainedTokenizerFast

from periscope.engine.text.token_text import TokenTable


def token_tree(tokenizer: Any, vocab_size: int, eos_token_ids: list[int]) -> LLTokenizer:
    """Make the trie of all tokens. Takes seconds for a big vocabulary.

    Args:
        tokenizer: mlx-lm's wrapper, or what it wraps.
        vocab_size: width of the model's logits.
    """
    inner = getattr(tokenizer, "_tokenizer", tokenizer)  # unwrapped, because llguidance checks the class
    if isinstance(inner, PreTrainedTokenizerFast):
        return from_tokenizer(inner, n_vocab=max(vocab_size, len(inner)), eos_token=eos_token_ids)
    return LLTokenizer(TokenizerWrapper(_SlowVocabulary(inner)), eos_token=eos_token_ids)


class _SlowVocabulary:
    """A tokenizer without a Rust core, in the shape llguidance reads: the bytes of each token, and a way to encode."""

    def __init__(self, tokenizer: Any) -> None:
        table = TokenTable(tokenizer)
        self._tokenizer = tokenizer
        self.eos_token_id = tokenizer.eos_token_id
        self.bos_token_id = tokenizer.bos_token_id
        self.tokens = [table.text(token_id).utf8 for token_id in range(len(tokenizer))]
        self.special_token_ids = sorted({*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()})

    def __call__(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError("text, not bytes")  # llguidance calls with bytes to find out whether they are supported
        return list(self._tokenizer.encode(text, add_special_tokens=False))
