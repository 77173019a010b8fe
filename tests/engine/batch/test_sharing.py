"""Which computed state a prompt starts from."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from periscope.engine.batch.sharing import MIN_LIVE_TOKENS, MIN_TOKENS, Source, StateView, longest_prefix

#: Few different tokens, of which long texts are made, so that many prompts share long prefixes.
TEXTS = st.lists(st.integers(0, 1), min_size=1, max_size=5).map(
    lambda parts: [part for part in parts for _ in range(20)]
)


def shared(wanted: list[int], state: StateView) -> int:
    """What `StateView.num_shared` says of itself, token by token."""
    tokens = state.tokens[: state.num_tokens].tolist()
    num = 0
    while num < min(len(wanted) - 1, len(tokens)) and wanted[num] == tokens[num]:
        num += 1
    return num if num >= MIN_TOKENS and (state.is_trimmable or num == len(tokens)) else 0


@given(
    TEXTS,
    st.lists(st.tuples(TEXTS, st.integers(0, 100), st.booleans())),
    st.lists(st.tuples(TEXTS, st.integers(0, 100))),
)
def test_it_is_the_first_that_shares_most(
    wanted: list[int], kept: list[tuple[list[int], int, bool]], live: list[tuple[list[int], int]]
) -> None:
    """A kept state; or a live one, where that saves much more."""
    kept_views = [
        StateView(Source.KEPT, key, np.array(text), min(length, len(text)), is_trimmable)
        for key, (text, length, is_trimmable) in enumerate(kept)
    ]
    live_views = [
        StateView(Source.LIVE, key, np.array(text), min(length, len(text))) for key, (text, length) in enumerate(live)
    ]
    most_kept = max((shared(wanted, view) for view in kept_views), default=0)
    most_live = max((shared(wanted, view) for view in live_views), default=0)
    is_live = most_live >= most_kept + MIN_LIVE_TOKENS
    most, views = (most_live, live_views) if is_live else (most_kept, kept_views)

    found = longest_prefix(np.array(wanted), kept_views, live_views)

    if not most:
        assert found is None
    else:
        first = next(view for view in views if shared(wanted, view) == most)
        assert found is not None
        assert (found.source, found.key, found.num_tokens) == (first.source, first.key, most)
