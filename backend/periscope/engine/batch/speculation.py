"""Speculative decoding: a draft model proposes a row's next tokens, and the model verifies them in one forward pass.

Worker thread only. It changes no token: drafted tokens that the model would not have sampled are discarded.
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

#: Tokens that the draft model prefills in one step to catch up with a row.
CATCH_UP_TOKENS = 512


class Drafter:
    """Owns the draft model and its caches, which hold one row at a time and must be trimmable. Shared by all batches.

    Source: Leviathan et al. 2023, with the greedy draft and exact match of mlx-lm's speculative_generate_step.
    """

    def __init__(self, model: Any, num_draft_tokens: int) -> None:
        self.num_draft_tokens = num_draft_tokens
        self._model = model
        self._caches: list[Any] = []
        self._computed = np.zeros(0, dtype=np.int64)  # tokens that the caches hold
        self.forget()

    def forget(self) -> None:
        """Drop the caches. The next row to draft for is prefilled from its start."""
        self._caches = make_prompt_cache(self._model)
        self._computed = self._computed[:0]

    @property
    def nbytes(self) -> int:
        """Bytes of the draft model's caches."""
        return sum(int(cache.nbytes) for cache in self._caches)

    def propose(self, tokens: Sequence[int], num_tokens: int) -> mx.array | None:
        """Draft what follows `tokens`: lazy token ids `(num_tokens,)`, or None while the caches are catching up."""
        wanted = np.asarray(tokens, dtype=np.int64)
        self._trim(common_prefix(self._computed, wanted[:-1]))
        uncomputed = wanted[len(self._computed) :]
        if len(uncomputed) > CATCH_UP_TOKENS:
            self._feed(mx.array(uncomputed[:CATCH_UP_TOKENS]))
            mx.eval([cache.state for cache in self._caches])
            self._computed = wanted[: len(self._computed) + CATCH_UP_TOKENS]
            return None
        token = mx.array(uncomputed)
        drafted = []
        for _ in range(num_tokens):
            token = self._feed(token)
            drafted.append(token)
        self._computed = wanted
        return mx.concatenate(drafted)

    def note_drafted(self, drafted: Sequence[int]) -> None:
        """Note the token ids of the last proposal; the caches hold all of them but the last."""
        self._computed = np.concatenate([self._computed, np.asarray(drafted[:-1], dtype=np.int64)])

    def _feed(self, tokens: mx.array) -> mx.array:
        logits = self._model(tokens[None], cache=self._caches)
        return mx.argmax(logits[:, -1, :], axis=-1)

    def _trim(self, length: int) -> None:
        if length < len(self._computed):
            trim_prompt_cache(self._caches, len(self._computed) - length)
            self._computed = self._computed[:length]


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of one speculative step.

    Attributes:
        accepted: drafted tokens that the model samples too, up to the first that ends the sequence.
        newest: the token that the model samples after those; None when the last accepted token ends the sequence.
    """

    accepted: tuple[int, ...]
    newest: int | None


class SpeculativeStep:
    """Runs the model once over a row's last token and a draft of what follows it."""

    def __init__(self, model: Callable[..., mx.array], drafter: Drafter) -> None:
        self._model = model
        self._drafter = drafter

    @property
    def max_tokens_per_step(self) -> int:
        """The most tokens that are added to the caches in one step."""
        return 1 + self._drafter.num_draft_tokens

    def can_run(self, rows: Sequence[Row]) -> bool:
        """Whether a speculative step is possible: one row, not at its end, without processors, grammar or logprobs."""
        if len(rows) != 1:
            return False
        (row,) = rows
        is_plain = not row.processors and row.matcher is None and not row.params.logprobs
        return is_plain and row.num_left > 1

    def run(self, row: Row, caches: LayerCaches) -> Verified:
        """Draft and verify what follows the row's tokens, the last of which is not in `caches` yet; blocks.

        While the drafter is catching up this is an ordinary step, but not overlapped with the next. Afterwards the
        caches hold the row's last token and the accepted ones.
        """
        drafted = self._drafter.propose(row.tokens, min(self._drafter.num_draft_tokens, row.num_left - 1))
        draft = mx.zeros((0,), dtype=mx.uint32) if drafted is None else drafted
        inputs = mx.concatenate([mx.array(row.tokens[-1:], dtype=mx.uint32), draft.astype(mx.uint32)])
        logits = self._model(inputs[None], cache=caches)[0]
        wanted = sample(logits, [(row.sampling, row.num_launched + ahead) for ahead in range(len(inputs))])
        mx.eval(wanted, draft)
        sampled, drafted_ids = cast("list[int]", wanted.tolist()), cast("list[int]", draft.tolist())
        if drafted_ids:
            self._drafter.note_drafted(drafted_ids)
        verified = _verified(_as_forced(row, sampled, drafted_ids), drafted_ids, row.end_token_ids)
        trim_prompt_cache(caches, len(drafted_ids) - len(verified.accepted))
        return verified


def _as_forced(row: Row, sampled: Sequence[int], drafted_ids: Sequence[int]) -> Sequence[int]:
    """The sampled tokens up to the first that the draft does not have, with those in place that end its thinking."""
    if row.thinking is None:
        return sampled
    tokens: list[int] = []
    for token in sampled:
        at = row.num_launched + len(tokens)
        forced = row.forced_token(at)
        tokens.append(token if forced is None else forced)
        row.thinking.see(tokens[-1], at)
        if drafted_ids[: len(tokens)] != tokens:
            break
    return tokens


def _verified(sampled: Sequence[int], drafted_ids: Sequence[int], end_token_ids: Collection[int]) -> Verified:
    """Pure: which drafted tokens are accepted.

    Args:
        sampled: ends with the first token that is not in `drafted_ids`, or goes on after it.
    """
    for num, (token, drafted_id) in enumerate(zip(sampled, drafted_ids, strict=False)):
        if token != drafted_id:
            return Verified(tuple(sampled[:num]), token)
        if token in end_token_ids:
            return Verified(tuple(sampled[: num + 1]), None)
    return Verified(tuple(drafted_ids), sampled[len(drafted_ids)])
