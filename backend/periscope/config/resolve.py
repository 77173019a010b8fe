"""Resolves valid settings into the models that are served: finds captioners and draft models, applies `--model`.

Pure, except that it checks whether files and directories that the settings name are there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from periscope.config.captioner_flags import read_captioner_flags
from periscope.config.document import Document, Origin, Problem, config_error
from periscope.config.keys import Loc, attribute_of, dotted
from periscope.config.layers import flag_origin
from periscope.config.misplaced import misplaced
from periscope.config.missing_files import missing_files
from periscope.config.params_schema import is_template
from periscope.config.schema import ConfigFile, ModelConfig, ModelEntry
from periscope.config.vision_schema import RemoteConfig, VisionProxyConfig
from periscope.core import DEFAULT_NAME, ModelKind, VisionMode, find_model
from periscope.demo import EMBEDDED, EMBEDDED_MODELS

_FOR_OTHERS = " for other models"
_HUB_ID_FLAG = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9_][\w.-]*")
_MAX_NAME = 150
_MODEL, _VISION_MODEL = flag_origin("model"), flag_origin("vision_model")
_VLM_BACKEND, _VLM_MODEL, _VLM_TIMEOUT = (flag_origin(f"vlm_{key}") for key in ("backend", "model", "timeout"))


@dataclass(slots=True, eq=False)
class ServedModel:
    """An entry of `models` while it is resolved. The places in `origins` are within the entry."""

    entry: ModelEntry
    origins: dict[Loc, Origin] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def aliases(self) -> tuple[str, ...]:
        return self.entry.aliases

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)

    @property
    def proxy(self) -> VisionProxyConfig | None:
        return self.entry.capabilities.vision_proxy

    def set(self, loc: Loc, value: object, origin: Origin) -> None:
        """Replace one setting of the entry."""
        self.entry = _with(self.entry, loc, value)
        self.origins[loc] = origin


def resolve_models(
    file: ConfigFile, document: Document, flags: Mapping[str, object], *, folder: Path, cwd: Path
) -> list[tuple[ModelConfig, dict[Loc, Origin]]]:
    """The models in the order they are served (the default first), each with the origins of its settings.

    Raises:
        ConfigError: `--model`, `--vision-model`, a `--vlm-...` flag, a `draft_model` or a `ca_file` names nothing that
            can be used so, or a text model has a key of captioners.
    """
    served = [_served(entry, index, document, folder) for index, entry in enumerate(file.models)]
    entries = tuple(served)
    for model in entries:
        _point_to_captioner(model, served)
        _point_to_reader(model, served)
    captioners = _captioners(served)
    embedders = {model.entry.name for model in served if model.entry.kind == ModelKind.EMBEDDING.value}
    if not {model.entry.name for model in served} - captioners - embedders:
        raise config_error(
            [_problem(document, ("models",), "holds no text model, which clients ask by default; add one")]
        )
    _apply_flags(served, captioners | embedders, flags, cwd)
    captioners |= _captioners(served)  # a captioner that a flag replaced is no text model
    problems: list[Problem] = []
    for index, model in enumerate(entries):
        if fault := _point_to_draft(model, served, captioners, folder):
            problems.append(_problem(document, ("models", index, "params", "draft_model"), fault))
        faults = (*missing_files(model.entry), *misplaced(model.entry, captioners))
        problems += [_problem(document, ("models", index, *key), fault) for key, fault in faults]
    if problems:
        raise config_error(problems)
    _name_by_variants(served)
    _name_by_hub_id(served)
    return [(_config(model, captioners), model.origins) for model in served]


def _name_by_variants(served: list[ServedModel]) -> None:
    """Whoever names a variant means its model, too: to load it, for instance."""
    for model in served:
        if names := tuple(variant.name for variant in model.entry.variants):
            model.entry = _with(model.entry, ("aliases",), (*model.entry.aliases, *names))
            model.origins.setdefault(("aliases",), model.origins.get(("variants",), Origin("derived")))


def _name_by_hub_id(served: list[ServedModel]) -> None:
    """A repository's id is one more alias of its entry: of the first that has it, unless it is already a name."""
    taken = {name for model in served for name in model.names} | {DEFAULT_NAME}
    for model in served:
        hub_id = model.entry.hf_id
        if hub_id is not None and hub_id not in taken:
            taken.add(hub_id)
            model.entry = _with(model.entry, ("aliases",), (*model.entry.aliases, hub_id))
            model.origins.setdefault(("aliases",), model.origins.get(("hf_id",), Origin("derived")))


def _apply_flags(served: list[ServedModel], captioners: set[str], flags: Mapping[str, object], cwd: Path) -> None:
    wanted, asked = flags.get("model"), read_captioner_flags(flags)
    if wanted is None:
        default = next(model for model in served if model.entry.name not in captioners)
    else:
        default = _serve_first(served, captioners, str(wanted), cwd)
    if asked.remote is not None:
        _see_through(default, _find_or_add_remote(served, asked.remote), _VLM_BACKEND)
    elif asked.model is not None:
        origin = _VLM_MODEL if flags.get("vision_model") is None else _VISION_MODEL
        _see_through(default, _find_or_add(served, asked.model, origin, cwd), origin)
    elif default.origins.get(("name",)) is _MODEL:  # a new entry: the file does not say how it sees
        known = (model for model in served if model.entry.name in captioners)
        if captioner := next(known, None):
            _see_through(default, captioner, _MODEL)
    if asked.timeout_s is not None:
        if default.proxy is None:
            _refuse(_VLM_TIMEOUT, f"{default.name} has no captioner; name one with --vlm-model")
        default.set(("capabilities", "vision_proxy", "timeout_s"), asked.timeout_s, _VLM_TIMEOUT)
    if wanted is not None:
        _preload_only(default, served)


def _config(model: ServedModel, captioners: set[str]) -> ModelConfig:
    kind = ModelKind.CAPTIONER if model.entry.name in captioners else ModelKind(model.entry.kind or ModelKind.TEXT)
    model.origins.setdefault(("kind",), Origin("derived"))
    return ModelConfig.model_construct(**{**dict(model.entry), "kind": kind})


def absolute(text: str, folder: Path) -> Path:
    """The absolute path, without `..`, of one that may start with `~` or be relative to `folder`."""
    expanded = os.path.expanduser(text)  # noqa: PTH111 - Path.expanduser raises when there is no such user
    return Path(os.path.normpath(folder / expanded))


def _served(entry: ModelEntry, index: int, document: Document, folder: Path) -> ServedModel:
    prefix = ("models", index)
    origins = {loc[2:]: origin for loc, origin in document.origins.items() if loc[:2] == prefix}
    model = ServedModel(entry, origins)
    if entry.local_path and not entry.local_path.startswith(EMBEDDED):
        model.entry = _with(entry, ("local_path",), str(absolute(entry.local_path, folder)))
    template = entry.params.chat_template
    if template is not None and not is_template(template):
        model.entry = _with(model.entry, ("params", "chat_template"), str(absolute(template, folder)))
    if any(text.startswith("@") for text in entry.warm):
        texts = tuple(f"@{absolute(text[1:], folder)}" if text.startswith("@") else text for text in entry.warm)
        model.entry = _with(model.entry, ("warm",), texts)
    if entry.remote and entry.remote.ca_file:
        model.entry = _with(model.entry, ("remote", "ca_file"), str(absolute(entry.remote.ca_file, folder)))
    return model


def _point_to_captioner(model: ServedModel, served: list[ServedModel]) -> None:
    """Set `vision_proxy.model` to the name of the entry that it means by alias or repository, or of a new one."""
    if model.proxy is None or (model.proxy.model is None and model.proxy.hf_id is None):
        return  # a native model has no captioner, only limits
    wanted, hub_id = model.proxy.model, model.proxy.hf_id
    if wanted is not None:
        captioner = find_model(served, wanted)
    else:
        captioner = next((other for other in served if other.entry.hf_id == hub_id), None)
    if captioner is None:
        if model.entry.capabilities.vision_mode is not VisionMode.PROXY:
            return  # nothing would use it
        origin = model.origins[("capabilities", "vision_proxy", "hf_id")]
        captioner = _add(served, {"hf_id": hub_id}, origin, preload=model.entry.preload)
    model.entry = _with(model.entry, ("capabilities", "vision_proxy", "model"), captioner.entry.name)
    if hub_id is not None:
        origin = model.origins[("capabilities", "vision_proxy", "hf_id")]
        model.origins[("capabilities", "vision_proxy", "model")] = origin


def _point_to_reader(model: ServedModel, served: list[ServedModel]) -> None:
    """Make `vision_proxy.reader` the name of its entry where it is an alias."""
    wanted = None if model.proxy is None else model.proxy.reader_model
    if wanted is not None and (reader := find_model(served, wanted)) is not None:
        model.entry = _with(model.entry, ("capabilities", "vision_proxy", "reader"), reader.entry.name)


def _point_to_draft(model: ServedModel, served: list[ServedModel], captioners: set[str], folder: Path) -> str | None:
    """Set `draft_model` to an entry's name, else to an absolute directory, an embedded model or a hub id.

    Returns:
        The problem with it; None if there is none.
    """
    wanted = model.entry.params.draft_model
    if wanted is None:
        return None
    if fault := _why_no_draft(model, captioners):
        return fault
    draft = _find(served, wanted, folder)
    if draft is model:
        return f"{wanted!r} is the model itself; name a smaller one with the same tokenizer"
    if draft is not None and (other_work := _other_work(draft, captioners)):
        return f"{wanted!r} {other_work}; name a text model"
    source = {"name": draft.entry.name} if draft else _source_of(wanted, folder)
    if source is None:
        return _names_nothing(served, wanted)
    model.entry = _with(model.entry, ("params", "draft_model"), next(iter(source.values())))
    return None


def _why_no_draft(model: ServedModel, captioners: set[str]) -> str | None:
    """What is wrong with a draft model for this model, whichever it is."""
    if model.entry.params.prompt_lookup:
        return "cannot be combined with prompt_lookup; remove one of the two"
    other_work = _other_work(model, captioners)
    if other_work or model.entry.capabilities.vision_mode is VisionMode.NATIVE:
        fault = (other_work or "is shown images (vision_mode: native)").removesuffix(_FOR_OTHERS)
        return f"is for text models, and this one {fault}; remove it"
    return None


def _other_work(model: ServedModel, captioners: set[str]) -> str | None:
    """What a model does that is no text model."""
    if model.entry.kind == ModelKind.EMBEDDING.value:
        return "only embeds texts"
    return f"only captions images{_FOR_OTHERS}" if model.entry.name in captioners else None


def _problem(document: Document, loc: Loc, fault: str) -> Problem:
    return Problem(document.origin(loc), f"{dotted(loc)} {fault}")


def _serve_first(served: list[ServedModel], captioners: set[str], wanted: str, cwd: Path) -> ServedModel:
    if wanted == DEFAULT_NAME:
        wanted = next(model.entry.name for model in served if model.entry.name not in captioners)
    model = _find_or_add(served, wanted, _MODEL, cwd)
    if other_work := _other_work(model, captioners):
        _refuse(_MODEL, f"{wanted!r} {other_work}; name a text model")
    served.remove(model)
    served.insert(0, model)
    for other in served[1:]:
        if DEFAULT_NAME in other.entry.aliases:  # the alias moves to the new default
            other.set(("aliases",), tuple(a for a in other.entry.aliases if a != DEFAULT_NAME), _MODEL)
    return model


def _preload_only(default: ServedModel, served: list[ServedModel]) -> None:
    """`--model` asks for one model: it, its captioner and its reader are loaded at start, the others when asked for."""
    wanted = {default.entry.name, *_eyes_of(default)}
    for model in served:
        if model.entry.remote is None and model.entry.preload != (model.entry.name in wanted):
            model.set(("preload",), model.entry.name in wanted, _MODEL)


def _see_through(default: ServedModel, captioner: ServedModel, origin: Origin) -> None:
    is_native = captioner.entry.capabilities.vision_mode is VisionMode.NATIVE
    is_embedder = captioner.entry.kind == ModelKind.EMBEDDING.value
    if captioner is default or is_embedder or (captioner.proxy is not None and not is_native):
        what = "an embedding" if is_embedder else "a text"
        _refuse(origin, f"{captioner.entry.name!r} is {what} model, so it cannot caption images")
    proxy = default.proxy or VisionProxyConfig()
    capabilities = default.entry.capabilities.model_copy(
        update={
            "vision_mode": VisionMode.PROXY,
            "vision_proxy": proxy.model_copy(update={"model": captioner.entry.name, "hf_id": None}),
        }
    )
    default.set(("capabilities",), capabilities, origin)
    default.origins[("capabilities", "vision_mode")] = origin
    default.origins[("capabilities", "vision_proxy", "model")] = origin
    default.origins.pop(("capabilities", "vision_proxy", "hf_id"), None)
    if default.entry.preload and not captioner.entry.preload and captioner.entry.remote is None:
        captioner.set(("preload",), True, origin)


def _find_or_add(served: list[ServedModel], wanted: str, origin: Origin, cwd: Path) -> ServedModel:
    """The entry of this name, alias, hub id or directory, else a new one for the hub id or an existing directory."""
    if (model := _find(served, wanted, cwd)) is not None:
        return model
    source = _source_of(wanted, cwd)
    path = None if source is None else source.get("local_path")
    if source is None or not (path is None or path.startswith(EMBEDDED) or os.path.isdir(path)):  # noqa: PTH112 - as below
        _refuse(origin, _names_nothing(served, wanted))
    return _add(served, source, origin)


def _find_or_add_remote(served: list[ServedModel], wanted: RemoteConfig) -> ServedModel:
    """The entry for this model of this server, with the settings it has in the file, else a new one."""
    identity = (wanted.backend, wanted.base_url, wanted.model)
    for model in served:
        if (it := model.entry.remote) is not None and (it.backend, it.base_url, it.model) == identity:
            return model
    given = wanted.model_dump(exclude_unset=True)
    added = _add(served, {"remote": given}, _VLM_BACKEND, called=wanted.model)
    added.origins |= {("remote", key): _VLM_BACKEND for key in given}
    return added


def _find(served: list[ServedModel], wanted: str, cwd: Path) -> ServedModel | None:
    """The entry of this name or alias, else of this hub id or directory."""
    if (model := find_model(served, wanted)) is not None:
        return model
    folder = str(absolute(wanted, cwd))
    sources = ((model, (model.entry.hf_id, model.entry.local_path)) for model in served)
    return next((model for model, source in sources if wanted in source or folder == source[1]), None)


def _source_of(wanted: str, cwd: Path) -> dict[str, str] | None:
    """The source of a new entry for a value that names no entry."""
    if wanted.startswith(EMBEDDED):
        return {"local_path": wanted} if wanted in EMBEDDED_MODELS else None
    folder = absolute(wanted, cwd)
    is_folder = wanted and os.path.isdir(folder)  # noqa: PTH112 - Path.is_dir raises when a name is too long
    if is_folder or wanted.startswith(("/", "./", "../", "~")):
        return {"local_path": str(folder)}
    return {"hf_id": wanted} if _HUB_ID_FLAG.fullmatch(wanted) else None


def _names_nothing(served: list[ServedModel], wanted: str) -> str:
    near = get_close_matches(wanted, [name for model in served for name in model.names], n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{wanted!r} is no configured model, no directory and no hub id (owner/name){hint}"


def _add(
    served: list[ServedModel],
    source: Mapping[str, Any],
    origin: Origin,
    *,
    preload: bool = False,
    called: str | None = None,
) -> ServedModel:
    """Append an entry named after the last part of its source, or of `called`; a taken name gets -2, -3, ..."""
    text = called or next(iter(source.values())) or ""
    base = re.sub(r"[^\w.:@+-]+", "-", re.split(r"[/:]", text)[-1])[:_MAX_NAME] or "model"
    taken = {name for model in served for name in model.names} | {DEFAULT_NAME}
    name, count = base, 2
    while name in taken:
        name, count = f"{base}-{count}", count + 1
    entry: dict[str, Any] = {"name": name, **source} | ({"preload": True} if preload else {})
    model = ServedModel(_entry(entry, origin), dict.fromkeys([(key,) for key in entry], origin))
    served.append(model)
    return model


def _entry(values: dict[str, Any], origin: Origin) -> ModelEntry:
    try:
        return ModelEntry.model_validate(values)
    except ValidationError as error:
        return _refuse(origin, f"cannot be used: {error.errors()[0]['msg']}")


def _captioners(served: list[ServedModel]) -> set[str]:
    """Names of the entries that only caption or read: those on other servers, and those that a proxy names.

    A native model that a proxy names answers requests, too, so it is not among them.
    """
    named = {name for model in served for name in _eyes_of(model)}
    return {
        model.entry.name
        for model in served
        if model.entry.remote is not None
        or (model.entry.name in named and model.entry.capabilities.vision_mode is not VisionMode.NATIVE)
    }


def _eyes_of(model: ServedModel) -> set[str | None]:
    """The entries that caption and read for this one."""
    return set() if model.proxy is None else {model.proxy.model, model.proxy.reader_model}


def _refuse(origin: Origin, text: str) -> NoReturn:
    raise config_error([Problem(origin, text)])


def _with(section: Any, loc: Loc, value: object) -> Any:
    """Pure: a copy of the section with one setting replaced."""
    name = attribute_of(type(section), str(loc[0]))
    inner = value if len(loc) == 1 else _with(getattr(section, name), loc[1:], value)
    return section.model_copy(update={name: inner})
