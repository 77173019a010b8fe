"""What serving knows of each configured model: names, vision, defaults. Plain data, made once at start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from periscope.core import GenerationParams, VisionMode
from periscope.errors import ModelNotFound
from periscope.vision.captioner import Captioner
from periscope.vision.proxy import ProxySettings


class DisabledImages(StrEnum):
    """What a model without vision does with images it is sent.

    `PLACEHOLDER` concerns images of earlier turns and of tool results only, so that agents keep working; an image in
    the last user turn is always rejected.
    """

    REJECT = "reject"
    PLACEHOLDER = "placeholder"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One text model that clients may name.

    Attributes:
        created: Unix seconds, for `/v1/models`.
        context_length: as configured or read from the model's files; None while unknown.
        captioner: describes images in proxy mode; None otherwise.
        captioner_model: its name in the pool; None when it is not there.
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
    captioner_model: str | None = None


class ModelNames:
    """Owns the mapping from what clients write to the model they mean. Only the default may change after the start.

    Attributes:
        captioner_aliases: other names of models that only caption, by their name. Commands take them, requests do not.
    """

    def __init__(
        self, models: Iterable[ServedModel], captioner_aliases: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        self.all = tuple(models)
        self.default = self.all[0]
        self.captioner_aliases = dict(captioner_aliases or {})
        self._by_name = {name: model for model in self.all for name in (*model.aliases, model.name)}

    def select(self, model: ServedModel) -> None:
        """Make this the default."""
        self.default = model

    def of_pool(self, name: str) -> ServedModel | None:
        """The model of this configured name; None for one that only captions."""
        return next((model for model in self.all if model.name == name), None)

    def resolve(self, name: str) -> ServedModel:
        """The model of this name or alias; the default one for "" and "default".

        Raises:
            ModelNotFound: nobody is called so. Never looks anywhere else, never downloads.
        """
        if name in {"", "default"}:
            return self.default
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(model.name for model in self.all)
            raise ModelNotFound(f"There is no model {name[:128]!r} here. Known: {known}.", param="model") from None
