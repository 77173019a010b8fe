"""Which model a name means: one rule for requests, commands, the command line and the configuration. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol, TypeVar

from periscope.errors import ModelNotFound

#: A name that always means the default model, as does an empty name.
DEFAULT_NAME = "default"
#: Longer names are cut in messages.
_MAX_SHOWN = 128


class Named(Protocol):
    """Anything that stands for one configured model."""

    @property
    def name(self) -> str:
        """Unique among all names and aliases."""
        ...

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other names for the model; its hub id is one of them, once the configuration is resolved."""
        ...


NamedT = TypeVar("NamedT", bound=Named)


def is_default_name(asked: str) -> bool:
    """Whether this name means the default model."""
    return asked in {"", DEFAULT_NAME}


def find_model(models: Collection[NamedT], asked: str, *, default: NamedT | None = None) -> NamedT | None:
    """The model that `asked` means: the default one for a default name, else that of this name, else of this alias.

    Args:
        default: without it, the default names mean nothing.

    Returns:
        None if no model has this name. Never looks on the disk or at the hub.
    """
    if default is not None and is_default_name(asked):
        return default
    by_name = next((model for model in models if model.name == asked), None)
    return by_name or next((model for model in models if asked in model.aliases), None)


def require_model(models: Collection[NamedT], asked: str, *, default: NamedT | None = None) -> NamedT:
    """Find a model as `find_model` does, by a name that must be one of these models'.

    Raises:
        ModelNotFound: no model has this name; the message lists the names that exist.
    """
    if (found := find_model(models, asked, default=default)) is not None:
        return found
    known = ", ".join(model.name for model in models) or "none"
    raise ModelNotFound(f"There is no model {asked[:_MAX_SHOWN]!r} here. Known: {known}.", param="model")
