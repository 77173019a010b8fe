"""Row: one request inside a text model's batch. Worker thread only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.engine.device.memory import BLOCK_TOKENS

if TYPE_CHECKING:
    import numpy as np

    from periscope.core import GenerationParams
    from periscope.engine.batch.sampling import LogitsProcessor, RowSampling
    from periscope.engine.structured.matcher import Matcher


@dataclass(slots=True, eq=False)
class Row:
    """One request in the batch. Owned by whichever of the batch's rooms it is in.

    Attributes:
        prompt: token ids `(num_prompt_tokens,)`.
        tokens: the prompt, then what was read of the completion.
        num_launched: completion tokens sampled, the one in flight included.
        num_held: how many of `tokens` the caches hold.
        is_retired: nobody waits for its tokens; its slot in the batch is only not compacted yet.
        is_shortened: the model would have gone on, but hardly any tokens were left to complete its output.
        fault: what a processor or matcher of this row raised; its tokens are worthless from then on.
    """

    id: int
    prompt: np.ndarray
    tokens: list[int]
    params: GenerationParams
    sampling: RowSampling
    processors: list[LogitsProcessor]
    matcher: Matcher | None = None
    num_cached_tokens: int = 0
    num_launched: int = 0
    num_held: int = 0
    is_retired: bool = False
    is_shortened: bool = False
    fault: Exception | None = None

    @property
    def num_read(self) -> int:
        """Completion tokens read."""
        return len(self.tokens) - len(self.prompt)

    @property
    def num_left(self) -> int:
        """Completion tokens that may still be sampled."""
        return (self.params.max_tokens or 1) - self.num_launched

    @property
    def reach(self) -> int:
        """Tokens that its caches are given room for: those it has and those of its next block, as far as it may go."""
        return len(self.tokens) + min((self.params.max_tokens or 1) - self.num_read, BLOCK_TOKENS)

    @property
    def is_read(self) -> bool:
        """Nobody waits for its newest token: it was read, it is still the prompt's last, or the row is retired."""
        return self.is_retired or self.num_read == self.num_launched

    @property
    def is_fully_launched(self) -> bool:
        """Its last token by `max_tokens` is in flight: no further forward pass is for it."""
        return not self.is_retired and self.num_left <= 0

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Whatever the row's own processors or matcher raise in here stays this row's."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is
            self.fault = self.fault or error
