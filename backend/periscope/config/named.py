"""What a person means by MODEL: an entry of models.yaml, or a repository of the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from periscope.core import VisionMode, find_model
from periscope.demo import EMBEDDED_MODELS
from periscope.errors import ModelNotFound

if TYPE_CHECKING:
    from periscope.config.load import Config
    from periscope.config.schema import ModelConfig

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*")


@dataclass(frozen=True, slots=True)
class NamedModel:
    """Where one model's files are or come from: `hub_id` or `folder`, never both; neither if it is on another server.

    Attributes:
        name: as models.yaml has it, else the hub id.
        entry: of models.yaml, if there is one.
    """

    name: str
    hub_id: str | None
    revision: str | None = None
    folder: Path | None = None
    entry: ModelConfig | None = None

    @property
    def why_kept(self) -> str | None:
        """Why its files are not ours to fetch or delete."""
        if self.entry is not None and (remote := self.entry.remote) is not None:
            return f"{self.name} is {remote.model} on the server at {remote.base_url}"
        if self.folder is None:
            return None
        if self.folder in EMBEDDED_MODELS.values():
            return f"{self.name} is part of Periscope"
        return f"{self.name} is the folder {self.folder}, which models.yaml names"


def find_named(config: Config, text: str) -> NamedModel:
    """Pure: the entry of this name, alias or hub id, else the repository of this id.

    Raises:
        ModelNotFound: it is none of these.
    """
    if (entry := _entry(config, text)) is not None:
        return named(entry)
    if _HUB_ID.fullmatch(text):
        pinned = next((model.revision for model in config.models if model.hf_id == text), None)
        return NamedModel(text, text, pinned)
    known = ", ".join(model.name for model in config.models)
    raise ModelNotFound(
        f"There is no model {text!r} in {config.path}, and it is no hub id such as mlx-community/Name. Known: {known}.",
        param="model",
    )


def named(entry: ModelConfig) -> NamedModel:
    """Pure: where an entry's files are."""
    if entry.local_path is None:
        return NamedModel(entry.name, entry.hf_id, entry.revision, entry=entry)
    return NamedModel(
        entry.name, None, folder=EMBEDDED_MODELS.get(entry.local_path, Path(entry.local_path)), entry=entry
    )


def with_companions(config: Config, model: NamedModel) -> tuple[NamedModel, ...]:
    """Pure: the model and those that work for it: its captioner, its reader and the model that drafts for it."""
    if model.entry is None:
        return (model,)
    others = [captioner_name(model.entry), reader_name(model.entry), model.entry.params.draft_model]
    wanted = dict.fromkeys(other for other in others if other is not None)
    found = [find_named(config, other) for other in wanted if _entry(config, other) or _HUB_ID.fullmatch(other)]
    return (model, *found)


def captioner_name(model: ModelConfig) -> str | None:
    """The name of the entry that captions for this model now, if any. Pure."""
    proxy = model.capabilities.vision_proxy
    return None if proxy is None or model.capabilities.vision_mode is not VisionMode.PROXY else proxy.model


def reader_name(model: ModelConfig) -> str | None:
    """The name of the entry that reads the text in pictures for this model now, if a model does. Pure."""
    proxy = model.capabilities.vision_proxy
    return None if proxy is None or model.capabilities.vision_mode is not VisionMode.PROXY else proxy.reader_model


def _entry(config: Config, text: str) -> ModelConfig | None:
    if not text:  # an empty argument is a mistake here: `rm ""` must not mean the default model
        return None
    entry = find_model(config.models, text, default=config.default_model)
    # A hub id is an alias as well, but here it means the repository: `pull owner/name` fetches that and no captioner.
    return None if entry is not None and text == entry.hf_id != entry.name else entry
