"""What serving knows of each text model: its names, its vision, its defaults. Frozen data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from periscope.core import GenerationParams, JSONObject, ModelFiles, VisionMode, find_model, require_model
from periscope.core.naming import Named
from periscope.errors import InvalidRequest, ModelNotFound
from periscope.vision.captioner import Captioner
from periscope.vision.settings import ProxySettings

#: Longer names are cut in messages.
_MAX_SHOWN = 128
_DESCRIBES = "describes pictures, for text models and at POST /api/captions"


class DisabledImages(StrEnum):
    """What happens to images that are sent to a model without vision.

    With `PLACEHOLDER`, images of earlier turns and of tool results become a sentence, so that agents keep working; an
    image in the last user turn is always rejected.
    """

    REJECT = "reject"
    PLACEHOLDER = "placeholder"


@dataclass(frozen=True, slots=True)
class Variant:
    """A further name for a model, with params of its own."""

    name: str
    params: GenerationParams = GenerationParams()
    template_kwargs: JSONObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One text model that requests may name.

    Attributes:
        created: Unix seconds, for `/v1/models`.
        context_length: as configured, or read from the model's files; None while it is unknown.
        files: what the model's files say.
        template_kwargs: variables for the chat template, over the model's own and below those of a request.
        variants: further names with other params; among `aliases`, too.
        variant: the name of the one that this is; None = the model itself.
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
    template_kwargs: JSONObject = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()
    variant: str | None = None

    @property
    def shown_name(self) -> str:
        """The name under which clients know it."""
        return self.variant or self.name

    @property
    def own_aliases(self) -> tuple[str, ...]:
        """Names that mean exactly this: those of variants mean something else."""
        others = {variant.name for variant in self.variants}
        return () if self.variant else tuple(alias for alias in self.aliases if alias not in others)

    def varied(self, asked: str) -> ServedModel:
        """Pure: the model as the variant of this name, if it is one; else as it is."""
        variant = next((each for each in self.variants if each.name == asked), None)
        if variant is None:
            return self
        params = variant.params.over(self.params)
        return replace(self, params=params, template_kwargs=variant.template_kwargs, variant=variant.name)


@dataclass(frozen=True, slots=True)
class ServedEmbedder:
    """One embedding model that requests may name.

    Attributes:
        created: Unix seconds, for `/v1/models`.
        max_tokens: of one text, as configured, or read from the model's files; None while it is unknown.
    """

    name: str
    aliases: tuple[str, ...]
    created: int
    max_tokens: int | None
    files: ModelFiles = ModelFiles()


class ModelNames:
    """Owns the text and embedding models that requests may name, and which text model is the default.

    Args:
        captioners: models that requests may not name, because they only describe pictures.
    """

    def __init__(
        self,
        models: Iterable[ServedModel],
        embedders: Iterable[ServedEmbedder] = (),
        captioners: Iterable[Named] = (),
    ) -> None:
        self.all = tuple(models)
        self.embedders = tuple(embedders)
        self.default = self.all[0]
        self._captioners = tuple(captioners)

    @property
    def listed(self) -> tuple[ServedModel, ...]:
        """All text models and their variants, the default one first."""
        every = (model.varied(name) for model in self.all for name in ("", *(each.name for each in model.variants)))
        others = (model for model in every if model.shown_name != self.default.shown_name)
        return (self.default, *others)

    def replace(
        self,
        models: Iterable[ServedModel],
        embedders: Iterable[ServedEmbedder] = (),
        captioners: Iterable[Named] = (),
    ) -> None:
        """Other models from now on. A default that was selected stays if it is among them."""
        was_selected, name = self.default is not self.all[0], self.default.shown_name
        self.all = tuple(models)
        self.embedders = tuple(embedders)
        self._captioners = tuple(captioners)
        selected = find_model(self.all, name) if was_selected else None
        self.default = selected.varied(name) if selected else self.all[0]

    def select(self, model: ServedModel) -> None:
        """Make this the default model, for requests that name none."""
        self.default = model

    def resolve(self, name: str) -> ServedModel:
        """The model of this name or alias, or its variant; the default one for "" and "default".

        Raises:
            ModelNotFound: no text model has this name.
            InvalidRequest: an embedding model or a captioner has it.
        """
        if find_model(self.all, name, default=self.default) is None and (does := self._does_instead(name)):
            raise InvalidRequest(
                f"Model {name[:_MAX_SHOWN]} only {does}. Ask a text model, such as {self.default.name}.",
                param="model",
            )
        return require_model(self.all, name, default=self.default).varied(name)

    def _does_instead(self, name: str) -> str | None:
        """What a model of this name that is no text model is for."""
        if find_model(self.embedders, name) is not None:
            return "embeds texts, at POST /v1/embeddings"
        return _DESCRIBES if find_model(self._captioners, name) is not None else None

    def resolve_embedder(self, name: str) -> ServedEmbedder:
        """The embedding model of this name or alias; the first one for "" and "default".

        Raises:
            ModelNotFound: no model has this name.
            InvalidRequest: a text model or a captioner has it.
        """
        default = next(iter(self.embedders), None)
        found = find_model(self.embedders, name, default=default)
        if found is not None:
            return found
        way_on = (
            "No embedding model is configured: add one to models.yaml, for instance with `hf_id: "
            "Qwen/Qwen3-Embedding-0.6B`."
            if default is None
            else f"Ask an embedding model, such as {default.name}."
        )
        if (other := find_model(self.all, name, default=self.default)) is not None:
            raise InvalidRequest(f"Model {other.name} answers and does not embed texts. {way_on}", param="model")
        if find_model(self._captioners, name) is not None:
            raise InvalidRequest(
                f"Model {name[:_MAX_SHOWN]} only {_DESCRIBES}. It embeds no texts. {way_on}", param="model"
            )
        if default is None:
            raise ModelNotFound(f"There is no model {name[:_MAX_SHOWN]!r} here. {way_on}", param="model")
        return require_model(self.embedders, name)
