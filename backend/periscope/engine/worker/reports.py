"""What a model's worker thread reports of a row: plain frozen data, never an `mx.array`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from periscope.core import FinishReason, TokenLogprob
    from periscope.errors import PeriscopeError


class TokenChunk(NamedTuple):
    """What one step added to a row. A tuple, because one is made for each token, in a third of a dataclass's time.

    Attributes:
        text: decoded text that can no longer change; empty while a character or a stop string is incomplete.
        token_ids: the tokens of this chunk, without an end-of-sequence token (which `num_tokens` counts).
        num_tokens: tokens sampled in this step; 0 only in `STARTED`.
        num_cached_tokens: prompt tokens that came from the prompt cache; set on the first chunk.
        num_accepted, num_rejected: tokens that were drafted for the row so far, and were right, and were not.
        logprobs: one per entry of `token_ids`, if the parameters ask for them; else empty.
        prompt_logprobs: one for each token of the prompt, on the first chunk, if the parameters ask for them.
        finish_reason: set on the last chunk only.
        vectors: of a row of texts to embed, in its only chunk: float32, of shape (texts, size).
    """

    text: str
    token_ids: tuple[int, ...]
    num_tokens: int
    num_cached_tokens: int = 0
    num_accepted: int = 0
    num_rejected: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    vectors: bytes = b""


#: Sent before a captioner's other chunks, when work on the image starts. Time limits of the image count from here.
STARTED: Final = TokenChunk(text="", token_ids=(), num_tokens=0)


@dataclass(frozen=True, slots=True)
class Failure:
    """The row's request has failed; no chunks follow."""

    error: PeriscopeError


Report: TypeAlias = TokenChunk | Failure


def ends(report: Report) -> bool:
    """Whether nothing follows this report of a row."""
    return isinstance(report, Failure) or report.finish_reason is not None
