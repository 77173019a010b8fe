"""Detokenizing gives whole characters only, and no part of a stop string."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from periscope.engine.text.detokenizer import FastDetokenizer, StopStrings


@pytest.fixture(scope="module")
def tokenizer(tiny_text_model: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_text_model / "tokenizer.json"))


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text_comes_back_whole_however_its_bytes_are_split(tokenizer: Tokenizer, text: str) -> None:
    """With one token per byte, every character is emitted once, complete, and no U+FFFD appears."""
    detokenizer = FastDetokenizer(tokenizer)
    pieces = [detokenizer.feed(token) for token in tokenizer.encode(text).ids]
    assert "".join([*pieces, detokenizer.finish()]) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


def test_a_character_cut_off_at_the_end_is_dropped(tokenizer: Tokenizer) -> None:
    """A completion that ends inside an emoji shows no part of it."""
    detokenizer = FastDetokenizer(tokenizer)
    ids = tokenizer.encode("ok🐳").ids[:-1]
    assert "".join(detokenizer.feed(token) for token in ids) + detokenizer.finish() == "ok"


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20), cut=st.integers(0, 80))
def test_a_text_goes_on_after_any_of_its_tokens(tokenizer: Tokenizer, text: str, cut: int) -> None:
    """Cut within a character, the rest tells all of it, once."""
    ids = tokenizer.encode(text).ids
    detokenizer = FastDetokenizer(tokenizer, ids[:cut])
    rest = "".join(detokenizer.feed(token) for token in ids[cut:]) + detokenizer.finish()
    whole = bytes(text, "utf-8")[:cut].decode(errors="ignore")
    assert rest == text[len(whole) :]


def test_the_space_before_a_word_is_kept_where_a_text_goes_on() -> None:
    """Decoders of the Llama family leave it out at the beginning of a text."""
    tokenizer = Tokenizer(models.BPE(vocab={"\u2581Hello": 0, "\u2581world": 1}, merges=[]))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    assert FastDetokenizer(tokenizer).feed(1) == "world"
    assert FastDetokenizer(tokenizer, [0]).feed(1) == " world"


@given(ids=st.lists(st.integers(0, 257), max_size=60))
def test_no_sequence_of_tokens_makes_it_raise(tokenizer: Tokenizer, ids: list[int]) -> None:
    """Invalid bytes in the output do not fail the row."""
    detokenizer = FastDetokenizer(tokenizer)
    for token in ids:
        detokenizer.feed(token)
    detokenizer.finish()


def cut_before_first(text: str, stops: tuple[str, ...]) -> str:
    """Reference: append one character at a time until one of the stop strings is complete."""
    for end in range(len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)]
    return text


@given(
    text=st.text("ab", max_size=30),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3).map(tuple),
    cuts=st.lists(st.integers(0, 30), max_size=8),
)
def test_stop_strings_cut_the_same_place_for_any_slicing(text: str, stops: tuple[str, ...], cuts: list[int]) -> None:
    """However tokens slice the text, the output is exactly the text before the first complete stop string."""
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    matcher = StopStrings(stops)
    out = "".join(matcher.feed(text[a:b]) for a, b in itertools.pairwise(bounds))
    if not matcher.is_hit:
        out += matcher.finish()
    assert out == cut_before_first(text, stops)
