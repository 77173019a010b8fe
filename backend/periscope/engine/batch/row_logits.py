"""What changes each row's logits before sampling: penalties, biases and grammars. Worker thread only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import mlx.core as mx
import numpy as np

from periscope.engine.batch.arrays import with_rows
from periscope.engine.batch.token_bias import with_biases
from periscope.engine.structured.token_bits import apply_bits

if TYPE_CHECKING:
    from periscope.engine.batch.rows import Row
    from periscope.engine.batch.said_tokens import SaidTokens


def processed(rows: Sequence[Row], newest: mx.array, logits: mx.array, said: SaidTokens) -> mx.array:
    """Logits `(rows, vocab)` with each row's penalties, then biases, applied; the input if no row has any.

    Args:
        newest: `(rows,)`, each row's newest token.
        logits: `(rows, vocab)`; not changed.
        said: what it has been given for the tokens before.
    """
    logits = said.penalised(rows, newest, logits)
    biases = [(index, bias) for index, row in enumerate(rows) for bias in row.biases if bias.acts_on(row.num_launched)]
    return with_biases(logits, biases) if biases else logits


def masked(rows: Sequence[Row], newest: mx.array, logits: mx.array) -> mx.array:
    """Logits `(rows, vocab)` in which tokens that a row's grammar forbids are minus infinity; the input is not changed.

    The matchers need the newest tokens, so this starts computing the logits and then blocks until those are there.
    """
    if not any(row.matcher for row in rows):
        return logits
    mx.async_eval(logits)  # type: ignore[no-untyped-call]
    bits: dict[int, np.ndarray] = {}
    for index, (row, token) in enumerate(zip(rows, cast("list[int]", newest.tolist()), strict=True)):
        if row.matcher is None or (token in row.end_token_ids and row.num_launched):
            continue
        with row.guarding():
            if row.num_launched:
                row.matcher.consume(token)
            bits[index] = row.matcher.allowed_bits(row.num_left)
            excluded_bits = row.matcher.excluded_bits
            if excluded_bits is not None and not row.is_shortened:
                row.is_shortened = _prefers(logits[index : index + 1], excluded_bits, to=bits[index])
    if not bits:
        return logits
    lines = mx.array(list(bits))
    return with_rows(logits, lines, apply_bits(logits[lines], np.stack(list(bits.values()))))


def _prefers(logits: mx.array, wanted: np.ndarray, *, to: np.ndarray) -> bool:
    """Whether the most likely token is in the set `wanted` rather than in the set `to`. Blocks until it is computed.

    Args:
        logits: `(1, vocab)`.
        wanted, to: sets of token ids, as words of bits.
    """
    best, other = (apply_bits(logits, words[None]).max() for words in (wanted, to))
    return bool((best > other).item())
