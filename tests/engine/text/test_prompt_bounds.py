"""A prompt that cannot fit is refused at little cost, and one that fits is tokenised as without a bound."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm import tokenizer_utils
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from periscope.core import Message, Role, TextPart, Tool, ToolCall
from periscope.engine import EngineConfig, InferenceEngine
from periscope.engine.text.chat_template import ChatTokenizer
from periscope.engine.text.prompt_bounds import (
    PIECE_CHARS,
    PromptBounds,
    certain_chars,
    certain_texts,
    pieces_of,
    reach_of,
)
from periscope.errors import ContextLengthExceeded
from tests.tiny_models import write_tokenizer

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
BYTE_TOKENS = [f"<0x{value:02X}>" for value in range(256)]


def byte_level(*longer: str) -> Tokenizer:
    vocab = {token: number for number, token in enumerate([*ALPHABET, *longer])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def with_bytes(tokens: list[str], *, byte_fallback: bool) -> Tokenizer:
    vocab = {token: number for number, token in enumerate(tokens)}
    return Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=byte_fallback))


class CountingTokenizer:
    """A tokenizer with one token per word, which records the longest text that it gets."""

    def __init__(self) -> None:
        self.longest = 0

    def encode(self, text: str) -> list[int]:
        self.longest = max(self.longest, len(text))
        return [0] * len(text.split())


def user(text: str) -> Message:
    return Message(Role.USER, (TextPart(text),))


def test_a_token_has_at_most_the_longest_text_of_the_vocabulary() -> None:
    """That length is known for byte-level vocabularies and those with byte fallback, and includes added tokens."""
    tokenizer = byte_level("abcdef")
    assert reach_of(tokenizer) == 6
    tokenizer.add_special_tokens(["<|im_start|>"])
    assert reach_of(tokenizer) == 12
    assert reach_of(with_bytes([*BYTE_TOKENS, "sentence", "▁piece"], byte_fallback=True)) == 8


def test_there_is_no_bound_if_characters_can_vanish() -> None:
    """With fused or dropped unknown characters, or steps that delete, no prompt is refused by arithmetic."""
    assert reach_of(with_bytes(["a", "b"], byte_fallback=False)) is None
    assert reach_of(with_bytes([*BYTE_TOKENS[1:], "a"], byte_fallback=True)) is None
    assert reach_of(Tokenizer(models.WordPiece({"[UNK]": 0}))) is None
    deleting: list[Any] = [
        normalizers.Replace(Regex("a+"), "a"),
        normalizers.Replace("ab", ""),
        normalizers.StripAccents(),
    ]
    for step in deleting:
        tokenizer = byte_level()
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), step])
        assert reach_of(tokenizer) is None
    tokenizer = byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("x", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    assert reach_of(tokenizer) is None


@given(st.text(max_size=80), st.sampled_from([None, normalizers.NFC(), normalizers.NFKC(), normalizers.NFD()]))
def test_arithmetic_never_counts_too_many_tokens(text: str, normalizer: Any) -> None:
    """Whatever the text and the normal form, it has at least as many tokens as are counted."""
    tokenizer = byte_level("Ġthe", "ing")
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    reach = reach_of(tokenizer)
    assert reach is not None
    assert len(tokenizer.encode(text).ids) * reach >= certain_chars(text)


def test_what_templates_drop_is_not_counted() -> None:
    """Reasoning of earlier turns and surrounding whitespace do not count; text, calls and tools do."""
    answer = Message(
        Role.ASSISTANT,
        (TextPart("<think>long</think>short"),),
        tool_calls=(ToolCall("1", "f", '{"a": 1}'),),
        reasoning="longer",
    )
    tool = Tool("f", "does", {"properties": {"a": {"enum": ["x", 1]}}})
    texts = list(certain_texts([user("hello"), answer], [tool], None))
    assert sorted(texts) == sorted(["hello", "short", '{"a": 1}', "does", "properties", "a", "enum", "x"])
    assert certain_chars(" \n a b \t") == 2


def test_more_messages_than_tokens_cannot_fit(tmp_path: Path) -> None:
    """Too many messages are refused however short they are, because rendering ten thousand would take seconds."""
    write_tokenizer(tmp_path)
    tokenizer = ChatTokenizer(tokenizer_utils.load(tmp_path), {}, context_length=1000)
    chat = [user("a"), Message(Role.ASSISTANT, (TextPart("b"),))] * 500
    with pytest.raises(ContextLengthExceeded, match="at least 1000 tokens"):
        tokenizer.render(chat)


@given(st.text(st.sampled_from("ab \n"), max_size=40), st.integers(0, 3 * PIECE_CHARS))
def test_pieces_are_the_text(text: str, size: int) -> None:
    """The pieces of a text make up the text, and none is longer than the limit."""
    whole = (text or "x") * (size // max(len(text), 1))
    pieces = list(pieces_of(whole))
    assert "".join(pieces) == whole
    assert all(0 < len(piece) <= PIECE_CHARS for piece in pieces)


def test_a_text_far_over_the_context_is_given_up_after_a_few_pieces() -> None:
    """The tokenizer gets only a few pieces of it, and the error says how many tokens were counted."""
    tokenizer = CountingTokenizer()
    with pytest.raises(ContextLengthExceeded) as refused:
        PromptBounds(None, 1000).encode(tokenizer.encode, "one two " * 1_000_000)
    assert tokenizer.longest <= PIECE_CHARS
    assert 1000 <= refused.value.num_prompt_tokens < 10_000
    assert refused.value.message.startswith(f"The prompt has at least {refused.value.num_prompt_tokens} tokens, but")


def test_a_text_that_fits_is_tokenised_as_a_whole() -> None:
    """A long text of few tokens is counted first, then tokenised as a whole."""
    tokenizer = CountingTokenizer()
    text = ("x" * 999 + " ") * 500
    assert len(PromptBounds(None, 600).encode(tokenizer.encode, text)) == 500
    assert tokenizer.longest == len(text)


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("bounded")
    write_tokenizer(folder)
    return ChatTokenizer(tokenizer_utils.load(folder), {}, context_length=100)


@pytest.mark.parametrize(
    ("messages", "tools"),
    [
        ([user("x" * 1200)], []),
        ([user("x" * 600), user("y" * 600)], []),
        ([Message(Role.ASSISTANT, (), tool_calls=(ToolCall("1", "f", '{"a": "' + "x" * 1200 + '"}'),))], []),
        ([user("x")], [Tool("f", "d" * 1200)]),
        ([user("x")], [Tool("f", "", {"properties": {"p" * 1200: {}}})]),
    ],
    ids=["message", "messages", "call", "tool", "schema"],
)
def test_a_chat_that_cannot_fit_is_never_rendered(
    bounded: ChatTokenizer, messages: list[Message], tools: list[Tool]
) -> None:
    """The vocabulary's longest token has 12 characters, so 1200 of them in any field are at least 100 tokens."""
    with pytest.raises(ContextLengthExceeded) as refused:
        bounded.render(messages, tools)
    assert refused.value.is_lower_bound
    assert 100 <= refused.value.num_prompt_tokens <= 102


def test_whitespace_is_not_refused_by_arithmetic(bounded: ChatTokenizer) -> None:
    """A template may trim it, so only tokenising tells, and even then not all of it is tokenised."""
    with pytest.raises(ContextLengthExceeded) as refused:
        bounded.render([user(" " * 3_000_000)])
    assert refused.value.is_lower_bound
    assert refused.value.num_prompt_tokens < 2 * PIECE_CHARS


@pytest.mark.parametrize("prompt", ["word " * 2_000_000, (65,) * 500_000], ids=["text", "tokens"])
def test_the_library_is_bounded_too(tiny_text_model: Path, prompt: str | tuple[int, ...]) -> None:
    """`generate` with 10 MB of plain text, or half a million token ids, is refused at once."""

    async def use() -> None:
        async with await InferenceEngine.load(str(tiny_text_model), EngineConfig(context_length=64)) as engine:
            async with asyncio.timeout(5):
                with pytest.raises(ContextLengthExceeded):
                    await engine.generate(prompt)

    asyncio.run(use())
