"""TokenTable: the text and bytes of single tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.utils import load_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from periscope.core import TokenText
from periscope.demo import EMBEDDED_MODELS
from periscope.engine.text.token_text import TokenTable

#: U+2581 is how SentencePiece writes a space, so its tokenizers cannot tell the two apart.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"), max_size=40)


@pytest.fixture(scope="module")
def demo_tokenizer() -> PreTrainedTokenizerFast:
    return load_tokenizer(EMBEDDED_MODELS["embedded:text"])


@pytest.fixture(scope="module")
def letters_tokenizer(tiny_text_model: Path) -> PreTrainedTokenizerFast:
    return load_tokenizer(tiny_text_model)


@pytest.fixture(scope="module")
def sentencepiece_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer like Llama 2's: blanks as U+2581, unknown characters as bytes."""
    pieces = ["<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "h", "i", "\u2581h", "\u2581hi"]
    merges = [("\u2581", "h"), ("\u2581h", "i")]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<s>"))  # noqa: S106
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def spelled(tokenizer: PreTrainedTokenizerFast, text: str) -> bytes:
    table = TokenTable(tokenizer)
    return b"".join(table.text(token).utf8 for token in tokenizer.encode(text, add_special_tokens=False))


@given(text=TEXTS)
def test_the_bytes_of_a_texts_tokens_are_the_texts(
    demo_tokenizer: PreTrainedTokenizerFast,
    letters_tokenizer: PreTrainedTokenizerFast,
    sentencepiece_tokenizer: PreTrainedTokenizerFast,
    text: str,
) -> None:
    """For every tokenizer family, the joined bytes of the tokens are the UTF-8 of the text."""
    for tokenizer in (demo_tokenizer, letters_tokenizer, sentencepiece_tokenizer):
        assert spelled(tokenizer, text) == text.encode()


def test_a_byte_level_vocabulary_may_lack_rare_bytes() -> None:
    """SmolLM's has 235 of the 256: blanks and characters beyond ASCII are told as they are all the same."""
    never_in_utf8 = "\xc0\xc1\xf5\xf6\xf7\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff"  # these bytes stand for themselves
    pieces = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(never_in_utf8))
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = "in Spain: 5 \u20ac\n"
    assert spelled(PreTrainedTokenizerFast(tokenizer_object=tokenizer), text) == text.encode()


def test_part_of_a_character_keeps_its_true_bytes(letters_tokenizer: PreTrainedTokenizerFast) -> None:
    """A token that is half a character has the text U+FFFD and its real byte."""
    table = TokenTable(letters_tokenizer)
    first, second = letters_tokenizer.encode("é")
    assert table.text(first) == TokenText(first, "\ufffd", b"\xc3")
    assert table.text(second) == TokenText(second, "\ufffd", b"\xa9")


def test_special_tokens_show_their_own_text(
    demo_tokenizer: PreTrainedTokenizerFast, sentencepiece_tokenizer: PreTrainedTokenizerFast
) -> None:
    """A marker has the text that chat templates write."""
    for tokenizer, marker in ((demo_tokenizer, "<|im_end|>"), (sentencepiece_tokenizer, "<s>")):
        token_id = tokenizer.convert_tokens_to_ids(marker)
        assert TokenTable(tokenizer).text(token_id) == TokenText(token_id, marker, marker.encode())


def test_ids_of_a_padded_vocabulary_have_no_text(demo_tokenizer: PreTrainedTokenizerFast) -> None:
    """Ids beyond the tokenizer's vocabulary have empty texts instead of raising."""
    table = TokenTable(demo_tokenizer)
    assert table.text(len(demo_tokenizer) + 5) == TokenText(len(demo_tokenizer) + 5, "", b"")
    assert table.text(-1).utf8 == b""
