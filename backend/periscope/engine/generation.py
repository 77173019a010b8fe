"""One generation of a text engine: its chunks, its cancellation handle, its statistics. Event loop only."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from periscope.core import FinishReason, GenerationParams, TokenLogprob

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from periscope.engine.structured.matcher import Grammar
    from periscope.engine.structured.thinking import ThinkingRules
    from periscope.engine.text.chat_template import RenderedPrompt
    from periscope.engine.worker.reports import TokenChunk
    from periscope.engine.worker.stream import TokenStream


@dataclass(frozen=True, slots=True)
class GenerationStats:
    """Token counts and times of one generation. `num_completion_tokens` includes the end-of-sequence token.

    Attributes:
        num_accepted_tokens, num_rejected_tokens: drafted tokens that are in the completion, and that are not.
    """

    num_prompt_tokens: int
    num_completion_tokens: int
    num_cached_tokens: int
    time_to_first_token_s: float
    duration_s: float
    num_accepted_tokens: int = 0
    num_rejected_tokens: int = 0

    @property
    def tokens_per_s(self) -> float:
        """Decode speed after the first token; 0 when there was only one."""
        decode_s = self.duration_s - self.time_to_first_token_s
        return (self.num_completion_tokens - 1) / decode_s if decode_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class GenerationOutput:
    """A whole generation. `logprobs` has one entry per token of `tokens` when the params asked for them."""

    tokens: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...]
    stats: GenerationStats


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request that is rendered, limited to the context, and ready to be submitted to the worker."""

    prompt: RenderedPrompt
    params: GenerationParams
    grammar: Grammar | None
    thinking: ThinkingRules | None


class GenerationStream:
    """One generation: iterate over its chunks, `cancel` it, read its `stats`. Also an async context manager.

    Owns its row in the worker's batch, which it submits at the first iteration. `cancel`, or the exit of the
    `async with` block, frees the row.

    Args:
        prepare: the request, or what renders the prompt and compiles the grammar, which may be cancelled at any await.
        submit: submits the prepared request to the worker; does not wait.
        end_thinking: ends the thinking of a row that was submitted; does not wait.
        clock: returns seconds, monotonic.
    """

    def __init__(
        self,
        prepare: Callable[[], PreparedRequest | Coroutine[Any, Any, PreparedRequest]],
        submit: Callable[[PreparedRequest], TokenStream],
        end_thinking: Callable[[TokenStream], None],
        clock: Callable[[], float],
    ) -> None:
        self._prepare = prepare
        self._submit = submit
        self._end_thinking = end_thinking
        self._ends_thinking = False
        self._clock = clock
        self._preparing: asyncio.Task[PreparedRequest] | None = None
        self._stream: TokenStream | None = None
        self._is_cancelled = False
        self._num_prompt_tokens = self._num_tokens = self._num_cached_tokens = 0
        self._num_accepted = self._num_rejected = 0
        self._started_at = self._first_at = self._last_at = clock()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenChunk:
        if self._is_cancelled:
            raise StopAsyncIteration
        if self._stream is None:
            prepared = self._prepare()
            if not isinstance(prepared, PreparedRequest):
                prepared = await self._prepared(prepared)
            self._num_prompt_tokens = len(prepared.prompt.token_ids)
            self._stream = self._submit(prepared)
            if self._ends_thinking:
                self._end_thinking(self._stream)
        chunk = await anext(self._stream)
        self._last_at = self._clock()
        if not self._num_tokens:
            self._first_at = self._last_at
            self._num_cached_tokens = chunk.num_cached_tokens
        self._num_tokens += chunk.num_tokens
        self._num_accepted, self._num_rejected = chunk.num_accepted, chunk.num_rejected
        return chunk

    async def _prepared(self, work: Coroutine[Any, Any, PreparedRequest]) -> PreparedRequest:
        """The request that the work prepares. Returns at once when the generation is cancelled meanwhile.

        Raises:
            StopAsyncIteration: `cancel` was called.
        """
        preparing = self._preparing = asyncio.create_task(work, name="prepare a request")
        preparing.add_done_callback(_note_end)
        try:
            await asyncio.wait({preparing})
        finally:
            preparing.cancel()
        if self._is_cancelled:
            raise StopAsyncIteration
        return preparing.result()

    def cancel(self) -> None:
        """Free the row and end the iteration. Idempotent, at any time."""
        self._is_cancelled = True
        if self._preparing is not None:
            self._preparing.cancel()
        if self._stream is not None:
            self._stream.cancel()

    def end_thinking(self) -> None:
        """End the model's thinking, so that it answers now; without effect if it does not think. At any time."""
        self._ends_thinking = True
        if self._stream is not None:
            self._end_thinking(self._stream)

    @property
    def stats(self) -> GenerationStats:
        """Counts and times up to the latest chunk."""
        return GenerationStats(
            num_prompt_tokens=self._num_prompt_tokens,
            num_completion_tokens=self._num_tokens,
            num_cached_tokens=self._num_cached_tokens,
            time_to_first_token_s=self._first_at - self._started_at,
            duration_s=self._last_at - self._started_at,
            num_accepted_tokens=self._num_accepted,
            num_rejected_tokens=self._num_rejected,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


def _note_end(preparing: asyncio.Task[PreparedRequest]) -> None:
    """Retrieve the exception of a task that is no longer awaited, so that asyncio does not log it."""
    if not preparing.cancelled():
        preparing.exception()
