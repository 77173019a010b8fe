"""Puts the tokens that end a row's thinking in place of what was sampled. Worker thread only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import mlx.core as mx

if TYPE_CHECKING:
    from periscope.engine.batch.rows import Row


def forced_tokens(rows: Sequence[Row], newest: mx.array, logits: mx.array) -> Mapping[int, int]:
    """The token that must come next in some rows, by their index. Their grammars have taken the newest tokens.

    Where the newest token decides whether thinking ends, this starts computing the logits and blocks until it is there:
    once or twice in a completion.

    Args:
        newest: `(rows,)`, each row's newest token.
        logits: `(rows, vocab)`, of the tokens that come next.
    """
    watched = [(index, row) for index, row in enumerate(rows) if row.thinking is not None]
    if not watched:
        return {}
    if any(row.thinking.depends_on(row.num_launched) for _, row in watched if row.thinking is not None):
        mx.async_eval(logits)  # type: ignore[no-untyped-call]
        tokens = cast("list[int]", newest.tolist())
        for index, row in watched:
            if row.num_launched:
                row.note_newest(tokens[index])
    forced = ((index, row.forced_token(row.num_launched)) for index, row in watched)
    return {index: token for index, token in forced if token is not None}


def with_forced(sampled: mx.array, forced: Mapping[int, int]) -> mx.array:
    """The sampled tokens `(rows,)`, with these in the places of some; the input if there are none."""
    if forced:
        sampled[mx.array(list(forced))] = mx.array(list(forced.values()), dtype=sampled.dtype)
    return sampled
