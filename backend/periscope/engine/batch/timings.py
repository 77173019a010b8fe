"""How long decode steps and prompt tokens took in earlier steps. Has no clock: durations are passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from periscope.engine.batch.prefill import GAP_STEPS

#: Weight of the newest measurement of a decode step.
_NEWEST_PART = 0.4


@dataclass(frozen=True, slots=True)
class Timings:
    """All that a plan knows of time, in seconds; None or absent = not measured yet.

    Attributes:
        step_s: a decode step of the running rows, smoothed.
        token_s: a token in the first chunk of a prompt, its part of the fixed costs included.
        chunk_token_s: by row id, a token of the prompt's previous chunk.
        slice_s: by row id, a layer slice of the chunk under way.
        encode_debt_s: decode time that running rows are still owed for images that were encoded beside them.
    """

    step_s: float | None = None
    token_s: float | None = None
    chunk_token_s: Mapping[int, float] = field(default_factory=dict)
    slice_s: Mapping[int, float] = field(default_factory=dict)
    encode_debt_s: float = 0.0

    def in_steps(self, seconds: float | None) -> float | None:
        """A duration in decode steps; None while either is unknown."""
        return None if seconds is None or not self.step_s else seconds / self.step_s


class Measurements:
    """Owns what the executor has measured of one model; gives the timings for the next plan."""

    def __init__(self) -> None:
        self._step_s: float | None = None
        self._token_s: float | None = None
        self._encode_debt_s = 0.0

    def note_encode(self, duration_s: float) -> None:
        """Record the encoding of an image beside running rows."""
        self._encode_debt_s += duration_s / GAP_STEPS

    def note_step(self, duration_s: float) -> None:
        """Record a decode step whose tokens were waited for."""
        self._encode_debt_s = max(self._encode_debt_s - duration_s, 0.0)
        known_s = duration_s if self._step_s is None else self._step_s
        self._step_s = known_s + _NEWEST_PART * (duration_s - known_s)

    def note_first_tokens(self, token_s: float | None) -> None:
        """Record the seconds per token of a chunk at the start of a prompt."""
        self._token_s = token_s

    def timings(self, chunk_token_s: Mapping[int, float], slice_s: Mapping[int, float]) -> Timings:
        """A snapshot, with what was measured of each prompt."""
        return Timings(self._step_s, self._token_s, chunk_token_s, slice_s, self._encode_debt_s)
