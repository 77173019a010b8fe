"""What is sent to a model's worker thread: plain frozen data, never an `mx.array`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from periscope.core import GenerationParams, Image
    from periscope.engine.structured.matcher import Grammar
    from periscope.engine.worker.stream import TokenStream


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
    """Run this prompt as a row of the batch and report to `stream`.

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
    """Give up every row, free the model and end the thread."""


@dataclass(frozen=True, slots=True)
class ReleaseMemory:
    """Give back what is only kept for later: the states of earlier prompts, buffers that MLX holds ready."""


Command: TypeAlias = Submit | ReleaseMemory | Shutdown
