"""Speculative decoding: a small model drafts what a row will say next, and the big one verifies it in one forward pass.

Worker thread only. It changes no token: what the big model would not have sampled is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache, trim_prompt_cache

from periscope.engine.batch.sampling import sample
from periscope.engine.batch.sharing import common_prefix

if TYPE_CHECKING:
    from periscope.engine.batch.prompt_cache import LayerCaches
    from periscope.engine.batch.rows import Row

#: Tokens the draft model reads in one step to catch up with a row it has not followed.
CATCH_UP_TOKENS = 512


class Drafter:
    """Owns the draft model and its caches, which follow one row at a time and must be trimmable. One for all batches.

    Source: Leviathan et al. 2023, with the greedy draft and exact match of mlx-lm's speculative_generate_step.
    """

    def __init__(self, model: Any, num_draft_tokens: int) -> None:
        self.num_draft_tokens = num_draft_tokens
        self._model = model
        self._caches: list[Any] = []
        self._held = np.zeros(0, dtype=np.int64)  # the tokens that the caches hold
        self.forget()

    def forget(self) -> None:
        """Let the caches go; the row that is followed is prefilled again when it is next drafted for."""
        self._caches = make_prompt_cache(self._model)
        self._held = self._held[:0]

    @property
    def nbytes(self) -> int:
        """What the caches of the draft model take."""
        return sum(int(cache.nbytes) for cache in self._caches)

    def propose(self, tokens: Sequence[int], num_tokens: int) -> mx.array | None:
        """A lazy draft `(num_tokens,)` of what follows `tokens`; None while it is still catching up with them."""
        wanted = np.asarray(tokens, dtype=np.int64)
        self._trim(common_prefix(self._held, wanted[:-1]))
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

    def _trim(self, length: int) -> None:
        if length < len(self._held):
            trim_prompt_cache(self._caches, len(self._held) - length)
            self._held = self._held[:length]


@dataclass(frozen=True, slots=True)
class Verified:
    """What one verified forward pass gave a row.

    Attributes:
        accepted: drafted tokens that the big model samples too, as far as the first that ends the sequence.
        newest: the token that the big model samples after those; None when the last accepted one ends the sequence.
    """

    accepted: tuple[int, ...]
    newest: int | None


class SpeculativeStep:
    """One forward pass of the big model over a row's last token and a draft of what follows it."""

    def __init__(self, model: Callable[..., mx.array], drafter: Drafter, *, end_token_ids: Collection[int]) -> None:
        self._model = model
        self._drafter = drafter
        self._end_token_ids = end_token_ids

    @property
    def most_tokens(self) -> int:
        """How many tokens the caches take in one step at most."""
        return 1 + self._drafter.num_draft_tokens

    def is_for(self, rows: Sequence[Row]) -> bool:
        """Whether a batch of these rows should be drafted for: one row whose sampling has no memory of its own."""
        if len(rows) != 1:
            return False
        (row,) = rows
        is_plain = not row.processors and row.matcher is None and not row.params.logprobs
        return is_plain and row.num_left > 1

    def run(self, row: Row, caches: LayerCaches) -> Verified:
        """Verify a draft of what follows the row's tokens, the last of which is not in `caches` yet; blocks.

        While the drafter is still catching up this is an ordinary step, only not overlapped. The caches hold the
        row's last token and the accepted ones afterwards.
        """
        drafted = self._drafter.propose(row.tokens, min(self._drafter.num_draft_tokens, row.num_left - 1))
        draft = mx.zeros((0,), dtype=mx.uint32) if drafted is None else drafted
        inputs = mx.concatenate([mx.array(row.tokens[-1:], dtype=mx.uint32), draft.astype(mx.uint32)])
        logits = self._model(inputs[None], cache=caches)[0]
        wanted = sample(logits, [(row.sampling, row.num_launched + ahead) for ahead in range(len(inputs))])
        mx.eval(wanted, draft)
        sampled, guessed = cast("list[int]", wanted.tolist()), cast("list[int]", draft.tolist())
        if guessed:
            self._drafter.settle(guessed)
        verified = _verified(sampled, guessed, self._end_token_ids)
        trim_prompt_cache(caches, len(guessed) - len(verified.accepted))
        return verified


def _verified(sampled: Sequence[int], guessed: Sequence[int], end_token_ids: Collection[int]) -> Verified:
    """Pure: what of a draft holds. `sampled` has one token more than `guessed`."""
    for num, (token, guess) in enumerate(zip(sampled, guessed, strict=False)):
        if token != guess:
            return Verified(tuple(sampled[:num]), token)
        if token in end_token_ids:
            return Verified(tuple(sampled[: num + 1]), None)
    return Verified(tuple(guessed), sampled[len(guessed)])
