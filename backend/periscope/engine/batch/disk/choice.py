"""Which kept states are worth a file, and which files a new one stands in for. Pure; sees tokens, not caches.

Writes wear a disk out, so a state is written only when it has much that no file holds. However a conversation grows,
all that is ever written for it is at most eight times its last state.
"""

from __future__ import annotations

from collections.abc import Sequence

from periscope.engine.batch.sharing import StateView, common_prefix

#: A shorter state is computed again as fast as it is read.
MIN_STORED_TOKENS = 64
#: A state of which files hold more than this is not written: its rest is computed again.
_STORED_PART = 7 / 8


def worth_writing(kept: Sequence[StateView], stored: Sequence[StateView]) -> list[int]:
    """The keys of the states to write, the most recently used first.

    Args:
        kept: in memory, the least recently used first.
        stored: on disk.
    """
    return [
        view.key
        for view in reversed(kept)
        if view.num_tokens >= MIN_STORED_TOKENS
        and _num_stored(view, stored) < _STORED_PART * view.num_tokens
        and not _is_between(view, kept)
    ]


def stood_in_for(new: StateView, stored: Sequence[StateView]) -> list[int]:
    """The keys of the stored states that nobody needs beside a new one: those it can be trimmed to.

    Of states that cannot be trimmed the shortest stays, too: the prefix that other conversations share.
    """
    prefixes = [view for view in stored if _is_prefix(view, new)]
    return [view.key for view in prefixes if new.is_trimmable or _is_between(view, [*prefixes, new])]


def _num_stored(view: StateView, stored: Sequence[StateView]) -> int:
    """How many tokens of a state a prompt with all of them, and more, would get from disk."""
    shared = [(min(common_prefix(view.tokens, other.tokens), other.num_tokens), other) for other in stored]
    return max((num for num, other in shared if other.is_trimmable or num == other.num_tokens), default=0)


def _is_between(view: StateView, views: Sequence[StateView]) -> bool:
    """Whether a shorter state is a prefix of this one, and this one a prefix of a longer one."""
    return any(_is_prefix(other, view) for other in views) and any(_is_prefix(view, other) for other in views)


def _is_prefix(view: StateView, longer: StateView) -> bool:
    return view.num_tokens < longer.num_tokens and common_prefix(view.tokens, longer.tokens) >= view.num_tokens
