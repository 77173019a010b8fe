"""Row: one completion in a text model's batch. Worker thread only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.engine.device.memory import BLOCK_TOKENS

if TYPE_CHECKING:
    import numpy as np

    from periscope.core import GenerationParams
    from periscope.engine.batch.penalties import Penalties
    from periscope.engine.batch.prompt_logprobs import PromptLogprobs
    from periscope.engine.batch.prompt_lookup import PromptLookup
    from periscope.engine.batch.row_images import RowImages
    from periscope.engine.batch.sampling import RowSampling
    from periscope.engine.batch.token_bias import TokenBias
    from periscope.engine.structured.matcher import Matcher
    from periscope.engine.structured.thinking import Thinking, ThinkingRules


@dataclass(slots=True, eq=False)
class Row:
    """One completion in the batch. Owned by its `Prompt` until it decodes, then by the `RowTable` of its batch.

    Attributes:
        prompt: token ids `(num_prompt_tokens,)`; tokens of an image are its key, see `RowImages.keyed_tokens`.
        tokens: the prompt, then the completion tokens that have been read.
        end_token_ids: those of the model and of the request; each ends the completion and is no part of its text.
        thinking_rules: how its thinking can be ended; None if the model marks none.
        thinking: its place in its thinking, if that is to end; None if nobody asks.
        images: the prompt's images; None if it has none.
        prompt_logprobs: collected while the prompt is computed; None unless asked for, and once they have been told.
        lookup: guesses its next tokens; None if nothing is drafted for it in this way.
        num_cached_tokens: prompt tokens that were taken from a computed prefix; reported as usage.
        num_launched: completion tokens sampled, the one in flight included.
        num_computed: how many of `tokens` the caches hold.
        num_accepted, num_rejected: drafted tokens that it has said, and that it has not.
        is_retired: it gets no further tokens; its slot in the batch has not been compacted yet.
        is_shortened: its grammar ended the output early so that it is complete within `max_tokens`.
        fault: what the matcher or the thinking of this row raised; its tokens are invalid from then on.
    """

    id: int
    prompt: np.ndarray
    tokens: list[int]
    params: GenerationParams
    sampling: RowSampling
    penalties: Penalties | None = None
    biases: tuple[TokenBias, ...] = ()
    end_token_ids: frozenset[int] = frozenset()
    matcher: Matcher | None = None
    thinking_rules: ThinkingRules | None = None
    thinking: Thinking | None = None
    images: RowImages | None = None
    prompt_logprobs: PromptLogprobs | None = None
    lookup: PromptLookup | None = None
    num_cached_tokens: int = 0
    num_launched: int = 0
    num_computed: int = 0
    num_accepted: int = 0
    num_rejected: int = 0
    is_retired: bool = False
    is_shortened: bool = False
    fault: Exception | None = None

    @property
    def num_read(self) -> int:
        """Completion tokens that have been read from the device."""
        return len(self.tokens) - len(self.prompt)

    @property
    def num_left(self) -> int:
        """Completion tokens that may still be launched."""
        return (self.params.max_tokens or 1) - self.num_launched

    @property
    def reach(self) -> int:
        """Tokens that its caches are given room for: its own and those of its next block, within `max_tokens`."""
        return len(self.tokens) + min((self.params.max_tokens or 1) - self.num_read, BLOCK_TOKENS)

    @property
    def is_read(self) -> bool:
        """No token of this row is waited for: all that were launched have been read, or the row is retired."""
        return self.is_retired or self.num_read == self.num_launched

    @property
    def is_fully_launched(self) -> bool:
        """Whether its last token by `max_tokens` has been launched, so that it needs no further forward pass."""
        return not self.is_retired and self.num_left <= 0

    def note_newest(self, token: int) -> None:
        """Show the newest launched token to what watches its thinking, before it counts as read."""
        if self.thinking is not None:
            with self.guarding():
                self.thinking.see(token, self.num_launched - 1)

    def note_drafts(self, num_accepted: int, num_rejected: int) -> None:
        """Count drafted tokens, by whether the row has said them."""
        self.num_accepted += num_accepted
        self.num_rejected += num_rejected

    def forced_token(self, at: int) -> int | None:
        """The token that must come at this place of the completion, to end its thinking; None = it is sampled."""
        if self.thinking is None:
            return None
        with self.guarding():
            return self.thinking.forced(at, len if self.matcher is None else self.matcher.num_accepted)
        return None

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Catch what the row's own matcher or thinking raises inside, as the `fault` of this row alone."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - it fails this row, and no other
            self.fault = self.fault or error


def position_deltas(rows: Sequence[Row]) -> dict[str, list[int]]:
    """How far the rows' positions are from their lengths, for models whose images take other positions than tokens."""
    rope_deltas = [0 if row.images is None else row.images.rope_delta for row in rows]
    return {"rope_deltas": rope_deltas} if any(rope_deltas) else {}
