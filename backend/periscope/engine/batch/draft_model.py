"""DraftModel: a small model that drafts the next tokens of a row that decodes alone. Worker thread only."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache, trim_prompt_cache

from periscope.engine.batch.sharing import common_prefix
from periscope.engine.batch.speculation import Drafts

if TYPE_CHECKING:
    from periscope.engine.batch.rows import Row

logger = logging.getLogger(__name__)

#: Tokens that the draft model prefills in one step to catch up with a row.
CATCH_UP_TOKENS = 512


class DraftModel:
    """Owns the draft model and its caches, which hold one row at a time and must be trimmable. Shared by all batches.

    Source: Leviathan et al. 2023, with the greedy draft and exact match of mlx-lm's speculative_generate_step.
    """

    def __init__(self, model: Any, num_draft_tokens: int) -> None:
        self._num_draft_tokens = num_draft_tokens
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

    def new_lookup(self, num_prompt_tokens: int, prediction: Sequence[int]) -> None:  # noqa: ARG002 - the contract's
        """Always None: a draft model uses neither a lookup nor a prediction, which is logged."""
        if prediction:
            logger.info("the `prediction` of a request is not used: the model has a `draft_model`, which drafts")

    def most_tokens(self, rows: Sequence[Row]) -> int:
        """The length of its drafts for a row that is alone; 0 for several rows."""
        return self._num_draft_tokens if len(rows) == 1 else 0

    def expects(self, rows: Sequence[Row], *, are_all: bool) -> bool:
        """Whether to wait for the newest token: always, if the model computes nothing but this row."""
        return are_all and len(rows) == 1 and rows[0].num_left > 1

    def propose(self, rows: Sequence[Row]) -> Drafts | None:
        """What the draft model samples next; None while its caches are catching up."""
        (row,) = rows
        if row.num_left <= 1:
            return None
        wanted = np.asarray(row.tokens, dtype=np.int64)
        self._trim(common_prefix(self._computed, wanted[:-1]))
        uncomputed = wanted[len(self._computed) :]
        if len(uncomputed) > CATCH_UP_TOKENS:
            self._feed(mx.array(uncomputed[:CATCH_UP_TOKENS]))
            mx.eval([cache.state for cache in self._caches])
            self._computed = wanted[: len(self._computed) + CATCH_UP_TOKENS]
            return None
        token = mx.array(uncomputed)
        drafted = []
        for _ in range(min(self._num_draft_tokens, row.num_left - 1)):
            token = self._feed(token)
            drafted.append(token)
        self._computed = wanted
        return Drafts(mx.concatenate(drafted)[None], (len(drafted),))

    def note_drafted(self, drafted: Sequence[Sequence[int]]) -> None:
        """Note the token ids of the last proposal; the caches hold all of them but the last."""
        self._computed = np.concatenate([self._computed, np.asarray(drafted[0][:-1], dtype=np.int64)])

    def note_step(self, num_rows: int, num_drafted: int, duration_s: float) -> None:
        """What steps take does not change what it drafts."""

    def _feed(self, tokens: mx.array) -> mx.array:
        logits = self._model(tokens[None], cache=self._caches)
        return mx.argmax(logits[:, -1, :], axis=-1)

    def _trim(self, length: int) -> None:
        if length < len(self._computed):
            trim_prompt_cache(self._caches, len(self._computed) - length)
            self._computed = self._computed[:length]
