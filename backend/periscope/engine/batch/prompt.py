"""Prompt: a request that is waiting or prefilling. Worker thread only.

Does not decide which prompt is prefilled, or when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from periscope.engine.batch.cache_room import trim_to_windows
from periscope.engine.batch.chunk import Chunk, forward_together, slices_of
from periscope.engine.batch.slot_caches import reserve
from periscope.engine.batch.step_plan import PromptView

if TYPE_CHECKING:
    from periscope.engine.batch.prompt_cache import LayerCaches
    from periscope.engine.batch.rows import Row


@dataclass(slots=True, eq=False)
class Prompt:
    """Owns a row that is waiting or prefilling, and the caches computed so far.

    Attributes:
        row: new, or preempted while it was decoding; then its completion so far is prefilled with its prompt.
        checkpoints: lengths in tokens at which the state is kept.
        tokens: `(num_tokens,)`, all tokens of the row.
        caches: hold `num_computed` tokens and those of the chunk under way; None until it is started.
        chunk: the chunk under way, which may be over other prompts, too.
        num_chunk_tokens: tokens of this prompt in it; 0 = there is none.
        num_passed_over: tokens of other prompts that were prefilled since it arrived.
        num_steps_waited: decode steps since it arrived.
        token_s: seconds per token of its last chunk, the fixed cost of the forward pass included; None before one.
    """

    row: Row
    checkpoints: Sequence[int] = ()
    tokens: np.ndarray = field(init=False)
    caches: LayerCaches | None = None
    num_computed: int = 0
    num_passed_over: int = 0
    num_steps_waited: int = 0
    token_s: float | None = None
    chunk: Chunk | None = None
    num_chunk_tokens: int = 0

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
            num_steps_waited=self.num_steps_waited,
            unencoded=() if self.row.images is None else self.row.images.unencoded,
            is_retired=is_retired,
            is_scored=self.row.prompt_logprobs is not None,
            may_share_chunk=self.row.images is None and self.row.prompt_logprobs is None,
            chunk_rows=() if self.chunk is None else self.chunk.row_ids,
        )

    def reset(self) -> None:
        """Preempt: drop what was computed, because older requests need the memory."""
        self.caches, self.chunk, self.num_chunk_tokens, self.num_computed = None, None, 0, 0
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
    def num_slices_left(self) -> int:
        """Layer slices left of the chunk under way; 0 = there is none."""
        return 0 if self.chunk is None else len(self.chunk.slices)

    @property
    def slice_s(self) -> float | None:
        """Seconds per layer slice of the chunk under way, as last measured; None before its first slice."""
        return None if self.chunk is None else self.chunk.slice_s

    def shares_chunk_with(self, other: Prompt) -> bool:
        """Whether the chunk under way of this prompt is over tokens of the other, too."""
        return self.chunk is not None and self.chunk is other.chunk

    def begin_chunk(self, chunk: Chunk, num_tokens: int) -> None:
        """Note that `num_tokens` tokens of this prompt are in a chunk that has been built."""
        assert self.chunk is None  # noqa: S101 - one chunk at a time
        self.chunk, self.num_chunk_tokens = chunk, num_tokens

    def end_chunk(self) -> int:
        """Count the tokens of the chunk, which is done, as computed. Returns how many there were."""
        chunk, num_tokens = self.chunk, self.num_chunk_tokens
        assert chunk is not None and self.caches is not None  # noqa: S101, PT018 - it was started
        if self.row.prompt_logprobs is not None and chunk.logits is not None:
            following = self.row.tokens[self.num_computed + 1 : self.num_computed + 1 + num_tokens]
            self.row.prompt_logprobs.add(chunk.logits[0], following)
        trim_to_windows(self.caches)
        self.chunk, self.num_chunk_tokens = None, 0
        self.token_s = chunk.spent_s / chunk.num_tokens
        self.num_computed += num_tokens
        return num_tokens


def start_chunk(model: Any, prompt: Prompt, num_tokens: int) -> Chunk:
    """Build the forward pass over the next `num_tokens` tokens of a prompt. Nothing is computed yet."""
    row, caches = prompt.row, prompt.caches
    assert caches is not None  # noqa: S101 - it was started
    start, stop = prompt.num_computed, prompt.num_computed + num_tokens
    reserve(caches, stop)
    logits: mx.array | None = None
    if row.images is None:
        logits = model(mx.array([row.tokens[start:stop]]), cache=caches)
    else:
        row.images.prefill(model, row.tokens, start, stop, caches)
    wanted = None if row.prompt_logprobs is None else logits
    chunk = Chunk((row.id,), num_tokens, slices_of([caches]), wanted)
    prompt.begin_chunk(chunk, num_tokens)
    return chunk


def start_shared_chunk(model: Any, parts: Sequence[tuple[Prompt, int]]) -> Chunk:
    """Build one forward pass over the next tokens of several prompts. Nothing is computed yet.

    Args:
        parts: prompts that may share chunks (`PromptView.may_share_chunk`), with the number of tokens of each.
    """
    tokens = [prompt.row.tokens[prompt.num_computed : prompt.num_computed + num] for prompt, num in parts]
    states = forward_together(model, [prompt.caches or [] for prompt, _ in parts], tokens)
    row_ids = tuple(prompt.row.id for prompt, _ in parts)
    chunk = Chunk(row_ids, sum(num for _, num in parts), slices_of(states))
    for (prompt, num), state in zip(parts, states, strict=True):
        prompt.caches = state
        prompt.begin_chunk(chunk, num)
    return chunk
