"""What crosses between a model's worker thread and the rest: plain frozen data, never an `mx.array`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from periscope.core import FinishReason, GenerationParams, Image, TokenLogprob
    from periscope.engine.matcher import Grammar
    from periscope.engine.stream import TokenStream
    from periscope.errors import PeriscopeError


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """A prompt for a text model.

    Attributes:
        token_ids: at least one.
        checkpoints: lengths of beginnings that other prompts are likely to share (ends of messages), ascending. A
            model whose caches cannot be cut back keeps its state there.
    """

    token_ids: tuple[int, ...]
    checkpoints: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """A prompt for a vision-language model: one image, then an instruction."""

    image: Image
    text: str


@dataclass(frozen=True, slots=True)
class Submit:
    """In: run this prompt as a row of the batch and report to `stream`.

    Attributes:
        params: `max_tokens` is set.
        grammar: what the completion must fit, compiled off this thread.
    """

    prompt: TokenPrompt | ImagePrompt
    params: GenerationParams
    stream: TokenStream
    grammar: Grammar | None = None


@dataclass(frozen=True, slots=True)
class Shutdown:
    """In: give up every row, free the model and end the thread."""


@dataclass(frozen=True, slots=True)
class ReleaseMemory:
    """In: give back what is only kept for later: the states of earlier prompts, buffers that MLX holds ready."""


Command: TypeAlias = Submit | ReleaseMemory | Shutdown


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """Out: what one step added to a row.

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


#: Out, before a captioner's other chunks: the picture's turn has come, and what it takes from now on is its own time.
BEGUN: Final = TokenChunk(text="", token_ids=(), num_tokens=0)


@dataclass(frozen=True, slots=True)
class Failure:
    """Out: the row ended without a result."""

    error: PeriscopeError


Report: TypeAlias = TokenChunk | Failure
