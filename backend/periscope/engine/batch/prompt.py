"""Prompt: a request whose prompt is not prefilled to its end, and its chunk under way. Worker thread only.

MLX computes nothing before it is asked to, so the forward pass over a chunk is built whole and computed in layer
slices: asking for one layer's keys and values computes the layers before it and no more. Rows that decode get their
tokens in between, and never wait for all of a chunk. Knows nothing of who comes next, and when.
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
    """Tokens on their way through the layers.

    Attributes:
        slices: caches still to be computed, in the order of the layers.
        slice_s: what each of the last slices took; None = none is computed.
        spent_s: on all slices so far.
    """

    num_tokens: int
    slices: deque[list[Any]]
    slice_s: float | None = None
    spent_s: float = 0.0


@dataclass(slots=True, eq=False)
class Prompt:
    """One request's prompt on its way into its caches.

    Attributes:
        row: also one that has been decoding and was preempted: what it has said is prefilled with its prompt.
        checkpoints: lengths at which the state is to be kept.
        tokens: `(num_tokens,)`, all of the row's.
        caches: hold `num_computed` tokens, and those of the chunk under way; None until it is started.
        num_passed_over: tokens prefilled of other prompts since it came.
        token_s: what a token of its last chunk took, its part of the forward pass included; None = there was none.
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
        """What the scheduler sees of it."""
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
            is_retired=is_retired,
        )

    def reset(self) -> None:
        """Let go of what was computed: its memory is needed by requests that came before."""
        self.caches, self._chunk, self.num_computed = None, None, 0

    @property
    def nbytes(self) -> int:
        """What its caches take."""
        return sum(int(cache.nbytes) for cache in self.caches or ())

    @property
    def num_left(self) -> int:
        """The last token is not prefilled: it is the first input of decoding."""
        return len(self.row.tokens) - 1 - self.num_computed

    @property
    def is_complete(self) -> bool:
        """It can start decoding."""
        return self.caches is not None and self.num_left == 0

    @property
    def num_chunk_tokens(self) -> int:
        """Of the chunk that is being computed."""
        return 0 if self._chunk is None else self._chunk.num_tokens

    @property
    def num_slices_left(self) -> int:
        """Of the chunk that is being computed."""
        return 0 if self._chunk is None else len(self._chunk.slices)

    @property
    def slice_s(self) -> float | None:
        """What each of the last slices of the chunk under way took; None = none is computed."""
        return None if self._chunk is None else self._chunk.slice_s

    def start_chunk(self, model: Callable[..., mx.array], num_tokens: int) -> None:
        """Build the forward pass over the next tokens; nothing is computed yet."""
        assert self.caches is not None and self._chunk is None  # noqa: S101, PT018 - started, and one at a time
        reserve(self.caches, self.num_computed + num_tokens)
        model(mx.array([self.row.tokens[self.num_computed : self.num_computed + num_tokens]]), cache=self.caches)
        self._chunk = _Chunk(num_tokens, deque(_slices_of(self.caches)))

    def compute(self, num_slices: int, clock: Callable[[], float]) -> int:
        """Compute layer slices of the chunk under way; returns its number of tokens once all are done, else 0."""
        chunk = self._chunk
        assert chunk is not None  # noqa: S101 - it was started
        started = clock()
        mx.eval([cache.state for _ in range(num_slices) for cache in chunk.slices.popleft()])
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
    """The first layer's keys and values are next to nothing by themselves: they are computed with the second's."""
    return [caches[:2], *([cache] for cache in caches[2:])]
