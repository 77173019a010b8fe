"""Which prompt is read next, and how much of it at once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: What is read beside running rows takes about as long as this many of their steps...
GAP_STEPS = 5
#: ...or up to this many when that finishes a prompt.
MAX_GAP_STEPS = 7
#: Smaller chunks waste the device.
MIN_CHUNK_TOKENS = 16
#: Until there is a measurement, a token of prompt is taken to cost this part of a decode step.
_ASSUMED_TOKEN_STEPS = 1 / 8
#: A waiting prompt counts as this many tokens shorter with every token that is read of another.
AGEING = 0.5
#: Weight of the newest measurement.
_ALPHA = 0.4


@dataclass(frozen=True, slots=True)
class PromptView:
    """A prompt that is not read to its end. `num_passed_over`: tokens read of others since it came."""

    num_left: int
    num_passed_over: int


def next_prompt(prompts: Sequence[PromptView]) -> int:
    """Index of the prompt to read next: the shortest first, with ageing; of equals, the one that came first."""
    return min(range(len(prompts)), key=lambda i: prompts[i].num_left - AGEING * prompts[i].num_passed_over)


@dataclass(frozen=True, slots=True)
class Pace:
    """Measured durations, smoothed. None until there is one.

    Attributes:
        step_s: of one decode step of the rows that run.
        token_s: of one prompt token, within a chunk.
    """

    step_s: float | None = None
    token_s: float | None = None

    def after_step(self, duration_s: float) -> Pace:
        """With one more decode step."""
        return Pace(_smoothed(self.step_s, duration_s), self.token_s)

    def after_chunk(self, num_tokens: int, duration_s: float) -> Pace:
        """With one more chunk."""
        return Pace(self.step_s, _smoothed(self.token_s, duration_s / num_tokens))


def _smoothed(old: float | None, new: float) -> float:
    return new if old is None else old + _ALPHA * (new - old)


def chunk_tokens(num_left: int, *, num_read: int, most: int, is_decoding: bool, pace: Pace) -> int:
    """How many tokens to read now of a prompt with `num_left`, after `num_read` of others in the same step.

    Numbered cases: 1 no row waits for a step: as much as is allowed; 2 the rest of the prompt fits the longer gap: all
    of it; 3 as much as the ordinary gap has left, and some in any case if nothing was read yet.
    """
    left_of_most = most - num_read
    if not is_decoding:  # 1
        return min(num_left, left_of_most)
    token_steps = pace.token_s / pace.step_s if pace.token_s and pace.step_s else _ASSUMED_TOKEN_STEPS
    if num_left + num_read <= min(MAX_GAP_STEPS / token_steps, most):  # 2
        return num_left
    rest_of_gap = int(GAP_STEPS / token_steps) - num_read
    if num_read:  # 3
        return min(num_left, left_of_most, rest_of_gap) if rest_of_gap >= MIN_CHUNK_TOKENS else 0
    return min(num_left, most, max(rest_of_gap, MIN_CHUNK_TOKENS))
