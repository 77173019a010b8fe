"""What a model's worker thread reports of a row: plain frozen data, never an `mx.array`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from periscope.core import FinishReason, TokenLogprob
    from periscope.errors import PeriscopeError


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """What one step added to a row.

    Attributes:
        text: decoded text that can no longer change; empty while a character or a stop string is incomplete.
        token_ids: tokens this chunk stands for; an end-of-sequence token is counted, not listed.
        num_tokens: tokens sampled in this step; 0 only in `BEGUN`.
        num_cached_tokens: prompt tokens that were not computed for this row; told with the first chunk.
        logprobs: one per entry of `token_ids`, if the params asked for them.
        finish_reason: set on the last chunk only.
    """

    text: str
    token_ids: tuple[int, ...]
    num_tokens: int
    num_cached_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None


#: Before a captioner's other chunks: the picture's turn has come, and what it takes from now on is its own time.
BEGUN: Final = TokenChunk(text="", token_ids=(), num_tokens=0)


@dataclass(frozen=True, slots=True)
class Failure:
    """The row ended without a result."""

    error: PeriscopeError


Report: TypeAlias = TokenChunk | Failure
