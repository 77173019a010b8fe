"""PromptLookup: drafts for one row from its own earlier tokens. Worker thread only; knows no model.

Where the row's last tokens stood before, in its prompt or completion, what followed them there is a guess of what
follows now. The guess is made for every token and compared with what came, whether or not it was drafted: so how
often guesses are right is known at no cost, and drafting starts and stops by itself.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

#: A guess is only made after so many tokens that stood together before. It is also the length of the indexed n-grams.
_NUM_INDEXED: Final = 2
#: Tokens of a match that are told apart: a longer one is as good as this.
_LONGEST_MATCH: Final = 10
#: Places where the last tokens stood before that are compared, the newest first.
_MAX_PLACES: Final = 8
#: How likely a guess is right, by the length of its match, before the row has shown it.
_FIRST_CHANCES: Final = (0.0, 0.0, 0.3, 0.45, 0.6, 0.7, 0.8, 0.85, 0.85, 0.9, 0.95)
#: Lengths of matches whose chances are learnt together.
_KINDS: Final = (0, 0, 2, 3, 4, 4, 6, 6, 6, 6, 10)
#: Weight of the newest guess in the chances.
_NEWEST_PART: Final = 1 / 12
#: The match that a prediction starts with, as long as if so many tokens had been found.
_FIRST_MATCH: Final = 6
#: Stands between the prompt, the prediction and the completion, and is no token.
_NOTHING: Final = -1


class PromptLookup:
    """Owns the index of one row's tokens, and how often guesses were right. Constant work and memory for each token.

    Source: Saxena 2023, "Prompt lookup decoding"; the chains of earlier places are those of LZ77 compressors.

    Args:
        num_prompt_tokens: of the row's prompt.
        prediction: tokens that the completion is likely to hold, by the request; may be empty.
    """

    def __init__(self, num_prompt_tokens: int, prediction: Sequence[int] = ()) -> None:
        self._num_prompt_tokens = num_prompt_tokens
        self._prediction = prediction
        self._tokens: list[int] = []  # with the prediction between prompt and completion
        self._newest: dict[int, int] = {}  # by the key of two tokens: the place behind them where they stood last
        self._earlier = array("q")  # by place: the place before it behind the same two tokens; 0 = none
        self._chances = list(_FIRST_CHANCES)
        self._at = 0  # the place whose token is the guess; 0 = there is none
        self._length = 0  # of the match before it
        self._num_seen = 0

    def see(self, tokens: Sequence[int]) -> None:
        """Show the row's tokens: its prompt, and the completion as far as it is known. Only new ones are looked at."""
        if not self._num_seen:
            self._begin(tokens[: self._num_prompt_tokens])
        for token in tokens[self._num_seen :]:
            self._take(token)
        self._num_seen = len(tokens)

    def _begin(self, prompt: Sequence[int]) -> None:
        self._tokens = list(prompt)
        if self._prediction:
            self._at, self._length = len(prompt) + 1, _FIRST_MATCH
            self._tokens += [_NOTHING, *self._prediction, _NOTHING]
        self._num_seen = len(prompt)
        known = np.asarray(self._tokens, dtype=np.int64)
        keys = _key(known[:-1], known[1:])
        order = np.argsort(keys, kind="stable")
        is_same = keys[order[1:]] == keys[order[:-1]]
        earlier = np.zeros(len(known) + 1, dtype=np.int64)
        earlier[order[1:][is_same] + _NUM_INDEXED] = order[:-1][is_same] + _NUM_INDEXED
        self._earlier = array("q", earlier.tobytes())
        self._newest = dict(zip(keys.tolist(), range(_NUM_INDEXED, len(known) + 1), strict=True))

    def _take(self, token: int) -> None:
        known, is_right = self._tokens, False
        if self._at:
            is_right = known[self._at] == token
            kind = _KINDS[self._length]
            self._chances[kind] += (is_right - self._chances[kind]) * _NEWEST_PART
        known.append(token)
        key = _key(known[-2], token) if len(known) > 1 else 0
        self._earlier.append(self._newest.get(key, 0))
        self._newest[key] = len(known)
        if is_right:
            self._at, self._length = self._at + 1, min(self._length + 1, _LONGEST_MATCH)
        else:
            self._at, self._length = 0, 0
        if self._length < _LONGEST_MATCH:
            self._search()

    def _search(self) -> None:
        """Find the place after the longest match of the newest tokens; of equal ones the newest."""
        known, end = self._tokens, len(self._tokens)
        at = self._earlier[end]
        for _ in range(_MAX_PLACES):
            if not at:
                return
            length = 0
            while length < min(at, _LONGEST_MATCH) and known[at - 1 - length] == known[end - 1 - length]:
                length += 1
            if length > self._length and length >= _NUM_INDEXED:
                self._at, self._length = at, length
            at = self._earlier[at]

    def chances(self, most: int) -> list[float]:
        """How likely the first token of the guess is right, the first two, and so on; empty if there is no guess."""
        if not self._at:
            return []
        chances, so_far = [], 1.0
        for length in range(self._length, self._length + most):
            so_far *= self._chances[_KINDS[min(length, _LONGEST_MATCH)]]
            chances.append(so_far)
        return chances

    def guess(self, most: int) -> list[int]:
        """At most so many tokens that may come next. A guess that reaches what has just been said repeats itself."""
        guessed: list[int] = []
        if self._at:
            for place in range(self._at, self._at + most):
                token = self._tokens[place] if place < len(self._tokens) else guessed[place - len(self._tokens)]
                if token < 0:  # the end of a text, or an image
                    break
                guessed.append(token)
        return guessed


def _key(first: Any, second: Any) -> Any:
    """Pure: a number, or an array of them, that is the same where two tokens are the same, and rarely elsewhere."""
    return (first << 24) ^ second
