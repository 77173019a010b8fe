"""PromptLookup guesses what has been said before, and learns how often that is right."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from periscope.engine.batch.lookup_drafter import LENGTHS, best_length
from periscope.engine.batch.prompt_lookup import PromptLookup

RANDOM = random.Random(3)
FILE = [RANDOM.randrange(1000) for _ in range(300)]
QUESTION = [2001, 2002, 2003]


def lookup_of(prompt: Sequence[int], said: Sequence[int] = (), prediction: Sequence[int] = ()) -> PromptLookup:
    """A look-up that has seen the completion token by token."""
    lookup = PromptLookup(len(prompt), prediction)
    for end in range(len(said) + 1):
        lookup.see([*prompt, *said[:end]])
    return lookup


def test_a_copy_of_the_prompt_is_guessed_after_two_tokens() -> None:
    """Also in its middle, and as far as is asked for."""
    assert lookup_of([*FILE, *QUESTION], FILE[40:41]).guess(8) == []
    assert lookup_of([*FILE, *QUESTION], FILE[40:42]).guess(8) == FILE[42:50]
    assert lookup_of([*FILE, *QUESTION], FILE[40:90]).guess(3) == FILE[90:93]


def test_a_copy_goes_on_behind_a_change() -> None:
    """Two tokens after one that differs, the rest of the original is guessed again."""
    edited = [*FILE[:50], 5000, *FILE[51:53]]
    assert lookup_of([*FILE, *QUESTION], edited).guess(16) == FILE[53:69]


def test_the_longest_match_wins_and_of_equal_ones_the_newest() -> None:
    """`3 4` is followed by 7, and 8, but `2 3 4` by 6."""
    assert lookup_of([1, 2, 3, 4, 6, 9, 3, 4, 7, 5, 3, 4, 8, 5], [2, 3, 4]).guess(1) == [6]
    assert lookup_of([9, 3, 4, 7, 5, 3, 4, 8, 5], [3, 4]).guess(1) == [8]


def test_what_repeats_itself_is_guessed_beyond_its_end() -> None:
    """A loop of three tokens is drafted as often as is asked for."""
    assert lookup_of(QUESTION, [1, 2, 3, 1, 2]).guess(7) == [3, 1, 2, 3, 1, 2, 3]


def test_a_prediction_is_guessed_from_the_first_token_and_never_beyond_its_end() -> None:
    """What stands between the texts is no token, and nothing is guessed across it."""
    lookup = PromptLookup(len(QUESTION), FILE[:5])
    lookup.see(QUESTION)
    assert lookup.guess(16) == FILE[:5]
    lookup.see([*QUESTION, *FILE[:3]])
    assert lookup.guess(16) == FILE[3:5]


def test_tokens_of_images_are_never_guessed() -> None:
    """They are negative numbers in a row's tokens."""
    assert lookup_of([1, 2, 3, -77, -77, 4, *QUESTION], [1, 2]).guess(9) == [3]


def test_chances_follow_what_happens() -> None:
    """A row that copies has long drafts; one whose guesses are wrong has none, and gets them back when it copies."""
    copying = lookup_of([*FILE, *QUESTION], FILE[:100])
    assert best_length([copying.chances(LENGTHS[-1])]) == LENGTHS[-1]
    pairs = [token for number in range(100) for token in (7, 8, 3000 + number)]  # `7 8` is followed by something new
    wrong = lookup_of(QUESTION, [*pairs, 7, 8])
    assert wrong.guess(1)
    assert best_length([wrong.chances(LENGTHS[-1])]) == 0
    again = lookup_of([*FILE, *QUESTION], [*pairs, *FILE[:40]])
    assert best_length([again.chances(LENGTHS[-1])]) > 0


def test_drafts_are_as_long_as_pays() -> None:
    """The dearer a token, the shorter; none where they cost more than they bring, or where other rows gain nothing."""
    chances = [0.9**number for number in range(1, 17)]
    lengths = [best_length([chances], cost) for cost in (0.01, 0.1, 0.3, 0.9)]
    assert lengths == sorted(lengths, reverse=True)
    assert (lengths[0], lengths[-1]) == (LENGTHS[-1], 0)
    assert best_length([chances, *[()] * 15], 0.3) == 0
    assert best_length([()]) == 0


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.lists(st.integers(0, 3), max_size=40),
    st.lists(st.integers(0, 3), max_size=20),
)
def test_a_guess_is_what_followed_the_same_tokens(prompt: list[int], said: list[int], prediction: list[int]) -> None:
    """However the tokens are shown, a guess has been preceded by the row's last two tokens somewhere."""
    step_by_step = lookup_of(prompt, said, prediction)
    at_once = PromptLookup(len(prompt), prediction)
    at_once.see([*prompt, *said])
    assert at_once.guess(4) == step_by_step.guess(4)
    assert at_once.chances(4) == step_by_step.chances(4)
    guess = step_by_step.guess(1)
    if guess and (not prediction or said != prediction[: len(said)]):
        texts = [prompt, prediction, said] if prediction else [[*prompt, *said]]
        tokens = [*prompt, *said][-2:]
        assert any(text[at : at + 3] == [*tokens, *guess] for text in texts for at in range(len(text)))
