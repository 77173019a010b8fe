"""What crosses between a model's worker thread and the rest: plain frozen data, never an `mx.array`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from periscope.core import FinishReason, GenerationParams, Image
    from periscope.engine.stream import TokenStream
    from periscope.errors import PeriscopeError


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """A prompt for a text model: token ids, at least one."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """A prompt for a vision-language model: one image, then an instruction."""

    image: Image
    text: str


@dataclass(frozen=True, slots=True)
class Submit:
    """In: run this prompt as a row of the batch and report to `stream`. `params.max_tokens` is set."""

    prompt: TokenPrompt | ImagePrompt
    params: GenerationParams
    stream: TokenStream


@dataclass(frozen=True, slots=True)
class Shutdown:
    """In: give up every row, free the model and end the thread."""


Command: TypeAlias = Submit | Shutdown


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """Out: what one step added to a row.

    Attributes:
        text: decoded text that can no longer change; empty while a character or a stop string is incomplete.
        token_ids: tokens this chunk stands for; an end-of-sequence token is counted, not listed.
        num_tokens: tokens sampled in this step.
        logprobs: one natural-log probability per entry of `token_ids`, if the params asked for them.
        finish_reason: set on the last chunk only.
    """

    text: str
    token_ids: tuple[int, ...]
    num_tokens: int
    logprobs: tuple[float, ...] = ()
    finish_reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Out: the row ended without a result."""

    error: PeriscopeError


Report: TypeAlias = TokenChunk | Failure
