"""What is sent to a model's worker thread: plain frozen data, never an `mx.array`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from periscope.core import GenerationParams, Image
    from periscope.engine.structured.matcher import Grammar
    from periscope.engine.structured.thinking import ThinkingRules
    from periscope.engine.text.images import PlacedImage
    from periscope.engine.worker.stream import TokenStream


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """A prompt for a model that answers.

    Attributes:
        token_ids: at least one.
        checkpoints: lengths, in tokens, of the prefixes that other prompts are likely to share (ends of messages),
            ascending. A model whose caches cannot be trimmed keeps a copy of its state at these lengths.
        images: those in the prompt, in order; for a model with vision.
        end_token_ids: tokens that end the completion besides the model's own end tokens.
        continues_text: the completion goes on with the prompt's text, so that the space before its first word is told.
            In a chat it is an answer of its own, and some tokenizers' decoders leave that space out.
        prediction: tokens that the completion is likely to hold, which may be drafted.
    """

    token_ids: tuple[int, ...]
    checkpoints: tuple[int, ...] = ()
    images: tuple[PlacedImage, ...] = ()
    end_token_ids: tuple[int, ...] = ()
    continues_text: bool = False
    prediction: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ImagePrompt:
    """A prompt for a captioner: one image, then an instruction."""

    image: Image
    text: str


@dataclass(frozen=True, slots=True)
class EmbeddingPrompt:
    """The texts of a request to an embedding model, as token ids. None is empty or longer than the model takes."""

    texts: tuple[tuple[int, ...], ...]


#: What a row of a batch begins with, by the kind of the model.
Prompt: TypeAlias = TokenPrompt | ImagePrompt | EmbeddingPrompt


@dataclass(frozen=True, slots=True)
class Submit:
    """Run this prompt as a row of the batch and report to `stream`.

    Attributes:
        params: `max_tokens` is set.
        grammar: constrains the completion; compiled on another thread. None = unconstrained.
        thinking: how the completion's thinking can be ended; None = the model marks none.
    """

    prompt: Prompt
    params: GenerationParams
    stream: TokenStream
    grammar: Grammar | None = None
    thinking: ThinkingRules | None = None


@dataclass(frozen=True, slots=True)
class EndThinking:
    """End the thinking of the row that reports to `stream` now. A row that has ended or marks none is left alone."""

    stream: TokenStream


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Fail every row, free the model and end the thread."""


@dataclass(frozen=True, slots=True)
class ReleaseMemory:
    """Free the prompt cache and the buffers in MLX's allocator cache. Running rows keep their memory."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Call `settled` once all that was sent before is handled and cancelled rows are removed, or the worker has ended.

    It is called on the worker's thread, or where the command is sent too late.
    """

    settled: Callable[[], None]


Command: TypeAlias = Submit | EndThinking | ReleaseMemory | Settle | Shutdown
