"""TextGenerator: what serving asks of a text model, wherever the model runs. Protocols and frozen data only."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from periscope.core import GenerationParams, GenerationRequest, OutputEvent, TokenText
from periscope.pool.contracts import PooledEngine


@dataclass(frozen=True, slots=True)
class GeneratorFacts:
    """The properties of a loaded text model, as `/v1/models` lists them.

    Attributes:
        context_length: tokens, prompt and completion together.
        is_batched: requests that run together share forward passes; otherwise they take turns, token by token.
        chat_template: its Jinja source; None for a model without one.
        authors_sampling: by which the model samples what a request leaves open.
    """

    context_length: int
    has_tools: bool
    has_reasoning: bool
    is_batched: bool
    chat_template: str | None = None
    authors_sampling: GenerationParams = GenerationParams()


class TextGenerator(Protocol):
    """Answers requests without images. Event loop only; any number of requests may run at once."""

    @property
    def facts(self) -> GeneratorFacts:
        """The properties of the model. They never change."""
        ...

    def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
        """The request's deltas, then `Finished`, without vision. `aclose()` at any point ends all work for it.

        Args:
            request: without image parts, and with the model's defaults filled into its parameters. Only a model with
                vision gets decoded images.

        Raises:
            RequestError: the prompt, the schema or a parameter cannot be used; before the first event.
            GenerationFailed, EngineClosed: the model failed, or was unloaded.
        """
        ...


@runtime_checkable
class PooledGenerator(PooledEngine, TextGenerator, Protocol):
    """A text generator that the pool loads, leases and frees."""


@runtime_checkable
class AnswersNow(PooledEngine, Protocol):
    """A text model whose thinking can be ended from outside: one of this machine. Event loop only."""

    def answer_now(self, request_id: str) -> None:
        """End the thinking of all choices of a running request that think now. Their answers follow.

        Raises:
            NotThinking: none of them thinks, or the model marks no thinking.
        """
        ...


@runtime_checkable
class PooledTokenizer(PooledEngine, Protocol):
    """A model of the pool whose tokenizer is on this machine. Event loop only."""

    @property
    def facts(self) -> GeneratorFacts:
        """The properties of the model. They never change."""
        ...

    async def tokens_of(self, prompt: str | GenerationRequest, *, adds_special_tokens: bool) -> tuple[TokenText, ...]:
        """The tokens of a plain text, or those of a request's rendered prompt.

        Args:
            prompt: a request as for `TextGenerator.stream`.
            adds_special_tokens: to a plain text, those with which the tokenizer opens or closes one. What stands in a
                rendered prompt is the chat template's choice.

        Raises:
            RequestError: the prompt cannot be rendered, or does not fit the context.
            EngineClosed: the model was unloaded.
        """
        ...

    async def text_of(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included.

        Raises:
            InvalidRequest: an id is not in the vocabulary.
            EngineClosed: the model was unloaded.
        """
        ...
