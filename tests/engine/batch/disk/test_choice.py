"""Which states are written: what no file holds, once; and how much that is in the course of a conversation."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from periscope.engine.batch.disk.choice import MIN_STORED_TOKENS, stood_in_for, worth_writing
from periscope.engine.batch.sharing import Source, StateView, common_prefix


def view(key: int, tokens: list[int], source: Source = Source.KEPT, *, is_trimmable: bool = True) -> StateView:
    return StateView(source, key, np.asarray(tokens, dtype=np.int64), len(tokens), is_trimmable)


def chat(number: int, length: int, shared: int = 0) -> list[int]:
    return [*range(shared), *(10_000 * (number + 1) + at for at in range(length - shared))]


def test_the_end_of_each_conversation_is_written_the_newest_first() -> None:
    """One state for each; a short one is not worth it."""
    kept = [view(1, chat(1, 200)), view(2, chat(2, MIN_STORED_TOKENS - 1)), view(3, chat(3, 300))]
    assert worth_writing(kept, []) == [3, 1]


def test_what_files_hold_most_of_is_not_written_again() -> None:
    """A conversation that has grown by a tenth waits; the next turns make it worth a write."""
    stored = [view(1, chat(1, 900), Source.DISK)]
    assert worth_writing([view(7, chat(1, 1000))], stored) == []
    assert worth_writing([view(7, chat(1, 1100))], stored) == [7]


def test_of_states_that_cannot_be_trimmed_the_beginning_and_the_end_are_written() -> None:
    """The checkpoints between them are of use to nobody else."""
    kept = [view(length, chat(1, length), is_trimmable=False) for length in (100, 200, 300)]
    assert worth_writing(kept, []) == [300, 100]
    stored = [view(length, chat(1, length), Source.DISK, is_trimmable=False) for length in (100, 300)]
    assert stood_in_for(view(9, chat(1, 500), is_trimmable=False), stored) == [300]
    assert worth_writing([view(9, chat(1, 200), is_trimmable=False)], stored) == [9]  # the 300 cannot serve it


def test_a_longer_state_takes_the_place_of_those_it_can_be_trimmed_to() -> None:
    """One file for a conversation, however it grew; another conversation keeps its own."""
    stored = [
        view(1, chat(1, 100), Source.DISK),
        view(2, chat(2, 100), Source.DISK),
        view(3, chat(1, 150), Source.DISK),
    ]
    assert stood_in_for(view(9, chat(1, 400)), stored) == [1, 3]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60), st.booleans())
def test_all_that_is_written_for_a_conversation_is_bounded(turns: list[int], is_trimmable: bool) -> None:
    """However it grows, and even if each turn is written: at most eight times its last state, and two files."""
    stored: list[StateView] = []
    length, num_written = 0, 0
    for key, turn in enumerate(turns):
        length += turn
        new = view(key, chat(1, length), is_trimmable=is_trimmable)
        for number in worth_writing([new], stored):
            gone = stood_in_for(new, stored)
            stored = [each for each in stored if each.key not in gone]
            stored.append(view(number, chat(1, length), Source.DISK, is_trimmable=is_trimmable))
            num_written += length
        held = max((each.num_tokens for each in stored), default=0)
        assert held >= 7 / 8 * length or length < MIN_STORED_TOKENS
    assert num_written <= 8 * length
    assert len(stored) <= (1 if is_trimmable else 2)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 300), st.integers(0, 300)), max_size=12), st.booleans())
def test_once_all_are_written_nothing_is_worth_writing(chats: list[tuple[int, int, int]], is_trimmable: bool) -> None:
    """And every kept state that is worth it is found in the files, most of it, by a prompt that goes on from it."""
    texts = [chat(number, max(length, shared), min(shared, length)) for number, length, shared in chats]
    kept = [view(key, tokens, is_trimmable=is_trimmable) for key, tokens in enumerate(texts)]
    stored: list[StateView] = []
    tried: set[int] = set()
    while keys := [key for key in worth_writing(kept, stored) if key not in tried]:
        tried.add(keys[0])
        new = kept[keys[0]]
        gone = stood_in_for(new, stored)
        stored = [each for each in stored if each.key not in gone]
        stored.append(view(len(tried) + 100, texts[keys[0]], Source.DISK, is_trimmable=is_trimmable))
    if is_trimmable:
        for each in kept:
            held = max((common_prefix(each.tokens, other.tokens) for other in stored), default=0)
            assert held >= 7 / 8 * each.num_tokens or each.num_tokens < MIN_STORED_TOKENS
    assert worth_writing(kept, stored) == [] or not is_trimmable
