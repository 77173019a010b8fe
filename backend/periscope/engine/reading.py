"""Prompt: a request whose prompt is not read to its end, and its chunk that is being computed. Worker thread only.

MLX computes nothing before it is asked to, so the forward pass over a chunk is built whole and computed a layer at a
time: asking for one layer's keys and values computes the layers before it and no more. Rows that decode get their
tokens in between, and never wait for all of a chunk. Knows nothing of who comes next, and when.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from periscope.engine.row_caches import cut_to_windows, reserve

if TYPE_CHECKING:
    from periscope.engine.prompt_cache import LayerCaches
    from periscope.engine.rows import Row


@dataclass(slots=True)
class _Chunk:
    """Tokens on their way through the layers.

    Attributes:
        pieces: caches still to be computed, in the order of the layers.
        num_pieces: at the start.
        piece_s: what the last pieces took each; None = none is computed.
        spent_s: on all pieces so far.
    """

    num_tokens: int
    pieces: deque[list[Any]]
    num_pieces: int
    piece_s: float | None = None
    spent_s: float = 0.0


@dataclass(slots=True, eq=False)
class Prompt:
    """One request's prompt on its way into its caches.

    Attributes:
        row: also one that has been decoding and was preempted: what it has said is read with its prompt.
        checkpoints: lengths at which the state is to be kept.
        tokens: `(num_tokens,)`, all of the row's.
        caches: hold `num_done` tokens, and those of the chunk under way; None until it is begun.
        num_passed_over: tokens read of other prompts since it came.
        token_s: what a token of its last chunk cost, the pass included; None = no chunk is computed.
    """

    row: Row
    checkpoints: Sequence[int] = ()
    tokens: np.ndarray = field(init=False)
    caches: LayerCaches | None = None
    num_done: int = 0
    num_passed_over: int = 0
    token_s: float | None = None
    _chunk: _Chunk | None = None

    def __post_init__(self) -> None:
        self.tokens = np.asarray(self.row.tokens, dtype=np.int64)

    def start_again(self) -> None:
        """Let go of what was read: its memory is needed by requests that came before."""
        self.caches, self._chunk, self.num_done = None, None, 0

    @property
    def nbytes(self) -> int:
        """What its caches take."""
        return sum(int(cache.nbytes) for cache in self.caches or ())

    @property
    def num_left(self) -> int:
        """The last token is not read here: it is the first input of decoding."""
        return len(self.row.tokens) - 1 - self.num_done

    @property
    def is_read(self) -> bool:
        """It can start decoding."""
        return self.caches is not None and self.num_left == 0

    @property
    def num_pieces(self) -> int:
        """How many a chunk is computed in; the first layer's keys and values are next to nothing by themselves."""
        return max(len(self.caches or ()) - 1, 1)

    @property
    def num_tokens_under_way(self) -> int:
        """Of the chunk that is being computed."""
        return 0 if self._chunk is None else self._chunk.num_tokens

    @property
    def num_pieces_left(self) -> int:
        """Of the chunk that is being computed."""
        return 0 if self._chunk is None else len(self._chunk.pieces)

    @property
    def piece_s(self) -> float | None:
        """What a piece of the chunk under way takes; None = not known."""
        if self._chunk is None:
            return None
        if self._chunk.piece_s is None and self.token_s is not None:
            return self.token_s * self._chunk.num_tokens / self._chunk.num_pieces
        return self._chunk.piece_s

    def start_chunk(self, model: Callable[..., mx.array], num_tokens: int) -> None:
        """Build the forward pass over the next tokens; nothing is computed yet."""
        assert self.caches is not None and self._chunk is None  # noqa: S101, PT018 - begun, and one at a time
        reserve(self.caches, self.num_done + num_tokens)
        model(mx.array([self.row.tokens[self.num_done : self.num_done + num_tokens]]), cache=self.caches)
        pieces = deque([self.caches[:2], *([cache] for cache in self.caches[2:])])
        self._chunk = _Chunk(num_tokens, pieces, len(pieces))

    def compute(self, num_pieces: int, clock: Callable[[], float]) -> int:
        """Go on with the chunk under way; returns its number of tokens once all of it is done, else 0."""
        chunk = self._chunk
        assert chunk is not None  # noqa: S101 - it was started
        started = clock()
        mx.eval([cache.state for _ in range(num_pieces) for cache in chunk.pieces.popleft()])
        took_s = clock() - started
        chunk.piece_s = took_s / num_pieces
        chunk.spent_s += took_s
        if chunk.pieces:
            return 0
        cut_to_windows(self.caches or [])
        mx.clear_cache()
        self._chunk = None
        self.token_s = chunk.spent_s / chunk.num_tokens
        self.num_done += chunk.num_tokens
        return chunk.num_tokens
