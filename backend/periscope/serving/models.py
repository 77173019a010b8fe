"""What serving knows of each text model: its names, its vision, its defaults. Frozen data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from periscope.core import GenerationParams, ModelFiles, VisionMode, require_model
from periscope.vision.captioner import Captioner
from periscope.vision.settings import ProxySettings


class DisabledImages(StrEnum):
    """What happens to images that are sent to a model without vision.

    With `PLACEHOLDER`, images of earlier turns and of tool results become a sentence, so that agents keep working; an
    image in the last user turn is always rejected.
    """

    REJECT = "reject"
    PLACEHOLDER = "placeholder"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One text model that requests may name.

    Attributes:
        created: Unix seconds, for `/v1/models`.
        context_length: as configured, or read from the model's files; None while it is unknown.
        files: what the model's files say.
        captioner: describes images in proxy mode; None in other modes.
        proxy: how images are described in proxy mode. In native mode its limits and documents are used, nothing else.
    """

    name: str
    aliases: tuple[str, ...]
    created: int
    context_length: int | None
    vision: VisionMode
    params: GenerationParams = GenerationParams()
    captioner: Captioner | None = None
    proxy: ProxySettings | None = None
    disabled_images: DisabledImages = DisabledImages.REJECT
    files: ModelFiles = ModelFiles()


class ModelNames:
    """Owns the text models that requests may name, and which of them is the default."""

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self.all = tuple(models)
        self.default = self.all[0]

    def replace(self, models: Iterable[ServedModel]) -> None:
        """Other models from now on. A default that was selected stays if it is among them."""
        was_selected, name = self.default is not self.all[0], self.default.name
        self.all = tuple(models)
        selected = next((model for model in self.all if model.name == name), None) if was_selected else None
        self.default = selected or self.all[0]

    def select(self, model: ServedModel) -> None:
        """Make this the default model, for requests that name none."""
        self.default = model

    def resolve(self, name: str) -> ServedModel:
        """The model of this name or alias; the default one for "" and "default".

        Raises:
            ModelNotFound: no text model has this name.
        """
        return require_model(self.all, name, default=self.default)
