"""From the model's logits to each row's next token: penalties, grammars, sampling, forced tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from periscope.engine.batch.row_logits import masked, processed
from periscope.engine.batch.sampling import sample
from periscope.engine.batch.thinking import forced_tokens, with_forced

if TYPE_CHECKING:
    import mlx.core as mx

    from periscope.engine.batch.rows import Row
    from periscope.engine.batch.said_tokens import SaidTokens


def next_tokens(rows: Sequence[Row], newest: mx.array, raw: mx.array, said: SaidTokens) -> mx.array:
    """Lazy token ids `(rows,)`. Advances `said` and the rows' grammars and thinking by their newest tokens.

    Args:
        newest: `(rows,)`, each row's newest token.
        raw: `(rows, vocab)`, the model's own logits of the token after it.
    """
    logits = masked(rows, newest, processed(rows, newest, raw, said))
    forced = forced_tokens(rows, newest, logits)
    return with_forced(sample(logits, [(row.sampling, row.num_launched) for row in rows]), forced)
