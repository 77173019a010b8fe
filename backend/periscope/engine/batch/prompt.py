"""Prompt: a request that is waiting or prefilling, and its chunk under way. Worker thread only.

MLX is lazy, so the forward pass over a chunk is built whole and evaluated in layer slices: evaluating one layer's keys
and values computes the layers up to it and no more. Decoding rows get their tokens in between and never wait for a
whole chunk. Does not decide which prompt is prefilled, or when.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from periscope.engine.batch.row_caches import reserve, trim_to_windows
from periscope.engine.batch.step_plan import PromptView

if TYPE_CHECKING:
    from periscope.engine.batch.prompt_cache import LayerCaches
    from periscope.engine.batch.rows import Row


@dataclass(slots=True)
class _Chunk:
    """A chunk of a prompt whose forward pass has been built and is being computed.

    Attributes:
        slices: the caches of each layer slice still to be computed, in the order of the layers.
        logits: `(1, num_tokens, vocab)`, if the log-probabilities of the prompt are wanted; computed last.
        slice_s: seconds per slice when slices were last computed; None before the first.
        spent_s: seconds spent on all slices so far.
    """

    num_tokens: int
    slices: deque[list[Any]]
    logits: mx.array | None = None
    slice_s: float | None = None
    spent_s: float = 0.0


@dataclass(slots=True, eq=False)
class Prompt:
    """Owns a row that is waiting or prefilling, and the caches computed so far.

    Attributes:
        row: new, or preempted while it was decoding; then its completion so far is prefilled with its prompt.
        checkpoints: lengths in tokens at which the state is kept.
        tokens: `(num_tokens,)`, all tokens of the row.
        caches: hold `num_computed` tokens and those of the chunk under way; None until it is started.
        num_passed_over: tokens of other prompts that were prefilled since it arrived.
        token_s: seconds per token of its last chunk, the fixed cost of the forward pass included; None before one.
    """

    row: Row
    checkpoints: Sequence[int] = ()
    tokens: np.ndarray = field(init=False)
    caches: LayerCaches | None = None
    num_computed: int = 0
    num_passed_over: int = 0
    token_s: float | None = None
    _chunk: _Chunk | None = None

    def __post_init__(self) -> None:
        self.tokens = np.asarray(self.row.tokens, dtype=np.int64)

    def view(self, *, is_retired: bool = False) -> PromptView:
        """The prompt, as the scheduler sees it."""
        return PromptView(
            row_id=self.row.id,
            tokens=self.tokens,
            reach=self.row.reach,
            checkpoints=self.checkpoints,
            is_started=self.caches is not None,
            num_computed=self.num_computed,
            num_chunk_tokens=self.num_chunk_tokens,
            num_slices_left=self.num_slices_left,
            num_passed_over=self.num_passed_over,
            unencoded=() if self.row.images is None else self.row.images.unencoded,
            is_retired=is_retired,
            is_scored=self.row.prompt_logprobs is not None,
        )

    def reset(self) -> None:
        """Preempt: drop what was computed, because older requests need the memory."""
        self.caches, self._chunk, self.num_computed = None, None, 0
        if self.row.prompt_logprobs is not None:
            self.row.prompt_logprobs.clear()

    @property
    def nbytes(self) -> int:
        """Bytes of the caches."""
        return sum(int(cache.nbytes) for cache in self.caches or ())

    @property
    def num_left(self) -> int:
        """Tokens left to prefill. The last token is not one of them: it is the first input of decoding."""
        return len(self.row.tokens) - 1 - self.num_computed

    @property
    def is_complete(self) -> bool:
        """Whether it can start decoding."""
        return self.caches is not None and self.num_left == 0

    @property
    def num_chunk_tokens(self) -> int:
        """Tokens of the chunk under way; 0 = there is none."""
        return 0 if self._chunk is None else self._chunk.num_tokens

    @property
    def num_slices_left(self) -> int:
        """Layer slices left of the chunk under way; 0 = there is none."""
        return 0 if self._chunk is None else len(self._chunk.slices)

    @property
    def slice_s(self) -> float | None:
        """Seconds per layer slice of the chunk under way, as last measured; None before its first slice."""
        return None if self._chunk is None else self._chunk.slice_s

    def start_chunk(self, model: Any, num_tokens: int) -> None:
        """Build the forward pass over the next `num_tokens` tokens. Nothing is computed yet."""
        assert self.caches is not None and self._chunk is None  # noqa: S101, PT018 - started, and one chunk at a time
        reserve(self.caches, self.num_computed + num_tokens)
        start, stop = self.num_computed, self.num_computed + num_tokens
        logits: mx.array | None = None
        if self.row.images is None:
            logits = model(mx.array([self.row.tokens[start:stop]]), cache=self.caches)
        else:
            self.row.images.prefill(model, self.row.tokens, start, stop, self.caches)
        self._chunk = _Chunk(
            num_tokens, deque(_slices_of(self.caches)), None if self.row.prompt_logprobs is None else logits
        )

    def compute(self, num_slices: int, clock: Callable[[], float]) -> int:
        """Compute layer slices of the chunk under way; blocks. Returns its number of tokens when it is done, else 0."""
        chunk = self._chunk
        assert chunk is not None  # noqa: S101 - it was started
        started = clock()
        mx.eval([cache.state for _ in range(num_slices) for cache in chunk.slices.popleft()])
        if not chunk.slices and self.row.prompt_logprobs is not None and chunk.logits is not None:
            following = self.row.tokens[self.num_computed + 1 : self.num_computed + 1 + chunk.num_tokens]
            self.row.prompt_logprobs.add(chunk.logits[0], following)
        took_s = clock() - started
        chunk.slice_s = took_s / num_slices
        chunk.spent_s += took_s
        if chunk.slices:
            return 0
        trim_to_windows(self.caches or [])
        mx.clear_cache()
        self._chunk = None
        self.token_s = chunk.spent_s / chunk.num_tokens
        self.num_computed += chunk.num_tokens
        return chunk.num_tokens


def num_slices_of(caches: LayerCaches) -> int:
    """How many layer slices a chunk is computed in."""
    return len(_slices_of(caches))


def _slices_of(caches: LayerCaches) -> list[list[Any]]:
    """The caches of each layer slice: one layer each, but the first two together.

    The first layer's keys and values are one projection of the embeddings, too little work for a slice of its own.
    """
    return [caches[:2], *([cache] for cache in caches[2:])]
