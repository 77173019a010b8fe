"""A vision-language model as a text reader, such as DeepSeek-OCR, which writes the text of a picture. Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from periscope.vision.captioner import Captioner
from periscope.vision.readers.model_families import FAMILIES_VERSION, ModelFamily


@dataclass(frozen=True, slots=True)
class ModelReader:
    """A model of models.yaml, here or on another server, that is asked for text instead of a description.

    Attributes:
        captioner: how the model is asked; it may caption as well.
        max_tokens: the longest answer.
    """

    captioner: Captioner
    family: ModelFamily
    max_tokens: int

    @property
    def name(self) -> str:
        """What the text model reads as the source of the text."""
        return self.captioner.id.name

    @property
    def revision(self) -> str:
        """Everything else that the text depends on. Part of the cache key."""
        family = self.family
        return f"{self.captioner.id.revision}/{family.name}/{FAMILIES_VERSION}/{family.prompt}/{self.max_tokens}"
