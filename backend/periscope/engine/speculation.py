"""Drafter: a small model that guesses what a row will say next, for the big one to verify in one pass.

Worker thread only. It changes no token: what the big model would not have sampled is thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache, trim_prompt_cache

from periscope.engine.prompt_cache import common_prefix

#: Tokens the draft model reads in one step to catch up with a row it has not followed.
CATCH_UP_TOKENS = 512


class Drafter:
    """Owns the draft model and its caches, which follow one row at a time and must be trimmable.

    Source: Leviathan et al. 2023, with the greedy draft and exact match of mlx-lm's speculative_generate_step.
    """

    def __init__(self, model: Any, num_draft_tokens: int) -> None:
        self.num_draft_tokens = num_draft_tokens
        self._model = model
        self._caches: list[Any] = []
        self._held = np.zeros(0, dtype=np.int64)  # the tokens that the caches hold
        self.forget()

    def forget(self) -> None:
        """Let the caches go; the row that is followed is read again when it is next guessed for."""
        self._caches = make_prompt_cache(self._model)
        self._held = self._held[:0]

    @property
    def nbytes(self) -> int:
        """What the caches of the draft model take."""
        return sum(int(cache.nbytes) for cache in self._caches)

    def propose(self, tokens: Sequence[int], num_tokens: int) -> mx.array | None:
        """A lazy guess `(num_tokens,)` at what follows `tokens`; None while it is still catching up with them."""
        wanted = np.asarray(tokens, dtype=np.int64)
        self._cut(common_prefix(self._held, wanted[:-1]))
        unread = wanted[len(self._held) :]
        if len(unread) > CATCH_UP_TOKENS:
            self._feed(mx.array(unread[:CATCH_UP_TOKENS]))
            mx.eval([cache.state for cache in self._caches])
            self._held = wanted[: len(self._held) + CATCH_UP_TOKENS]
            return None
        token = mx.array(unread)
        drafted = []
        for _ in range(num_tokens):
            token = self._feed(token)
            drafted.append(token)
        self._held = wanted
        return mx.concatenate(drafted)

    def settle(self, drafted: Sequence[int]) -> None:
        """What was drafted in the last proposal; the caches hold all of it but the last token."""
        self._held = np.concatenate([self._held, np.asarray(drafted[:-1], dtype=np.int64)])

    def _feed(self, tokens: mx.array) -> mx.array:
        logits = self._model(tokens[None], cache=self._caches)
        return mx.argmax(logits[:, -1, :], axis=-1)

    def _cut(self, length: int) -> None:
        if length < len(self._held):
            trim_prompt_cache(self._caches, len(self._held) - length)
            self._held = self._held[:length]
