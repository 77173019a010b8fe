"""Keys of models.yaml and their places: find one, list all, read their values. Pure; `schema.py` has the keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias, get_args, get_origin

from pydantic.fields import FieldInfo

from periscope.config.schema import ConfigFile
from periscope.config.section import Section, fields_of

#: Lists at the top of the file whose entries have keys of their own.
LISTS = ("models", "mcp_servers")
#: Place of a value: keys and list indexes from the top of the file.
Loc: TypeAlias = tuple[str | int, ...]


def section_of(annotation: Any) -> type[Section] | None:
    """The section inside a field's type (`tuple[ModelEntry, ...]`, `VisionProxyConfig | None`), if any."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(section_of, get_args(annotation))), None)


def section_at(loc: Loc) -> type[Section] | None:
    """The section whose keys stand at `loc`, None if `loc` is no section."""
    section: type[Section] | None = ConfigFile
    for key in loc:
        if isinstance(key, str):
            field = fields_of(section).get(key) if section else None
            section = section_of(field.annotation) if field else None
    return section


def settings(section: type[Section] = ConfigFile, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key that holds a value, as (`models[].params.dtype`, field), in the order of the file."""
    for key, field in fields_of(section).items():
        inner = section_of(field.annotation)
        if inner is None or (get_origin(field.annotation) is tuple and key not in LISTS):
            yield prefix + key, field
        else:
            yield from settings(inner, f"{prefix}{key}[]." if key in LISTS else f"{prefix}{key}.")


def leaves(section: Section, loc: Loc = ()) -> Iterator[tuple[Loc, Any]]:
    """Every setting of a section with its place; an absent section is one setting that is None."""
    for key in fields_of(type(section)):
        value = getattr(section, attribute_of(type(section), key))
        here = (*loc, key)
        if isinstance(value, Section):
            yield from leaves(value, here)
        else:
            yield here, value


def attribute_of(section: type[Section], key: str) -> str:
    """The Python name of a key of the file."""
    return next(name for name, field in section.model_fields.items() if key in (name, field.alias))


def dotted(loc: Loc) -> str:
    """A place as messages show it: `("models", 0, "name")` is `models[0].name`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc)
    return text.removeprefix(".")


def json_schema() -> dict[str, Any]:
    """JSON schema of models.yaml; every key with description, unit, default and bounds."""
    return ConfigFile.model_json_schema(by_alias=True)
