"""What a request's penalties are: how much less likely tokens become once they have come."""

from __future__ import annotations

from dataclasses import dataclass

from periscope.core import GenerationParams


@dataclass(frozen=True, slots=True)
class Penalties:
    """How much less likely tokens of a row become once they have come.

    Attributes:
        repetition: divides the logits of tokens of prompt and completion that are positive, and multiplies the others.
            Source: Keskar et al. 2019 (CTRL), as in Hugging Face transformers.
        frequency: subtracted for each time that a token has come in the completion. Source: OpenAI API reference.
        presence: subtracted once for tokens that have come in the completion. Source: as for `frequency`.
    """

    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0

    @classmethod
    def of(cls, params: GenerationParams) -> Penalties | None:
        """Those of a request; None where its settings are neutral."""
        repetition = 1.0 if params.repetition_penalty is None else params.repetition_penalty
        penalties = cls(repetition, params.frequency_penalty or 0.0, params.presence_penalty or 0.0)
        return None if penalties == cls() else penalties
